"""Handlers for training that MONAI lacks."""

from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import from_engine

from ..errors import UserError

READ_EVERY = 50
"""Steps after which a loss that is not finite ends a training at the latest."""
_LOSS = from_engine(["loss"], first=True)


class InOrder:
    """Ignite handler that attaches handlers which have ids of their own, in their order.

    MONAI's check of a workflow's properties takes every entry of a list of handlers for a component
    with a `_target_`, so that a reference such as `@train#schedule` cannot stand there alone.
    """

    def __init__(self, handlers: Sequence[Any]) -> None:
        self.handlers = handlers

    def attach(self, engine: Engine) -> None:
        """Attach all of them."""
        for handler in self.handlers:
            handler.attach(engine)


class StopAtNonFiniteLoss:
    """Ignite handler of the trainer that ends a training whose loss is NaN or infinite.

    The first such step is remembered on the loss's own device and looked at every `READ_EVERY`
    steps and before an epoch's other handlers, so that a GPU is not waited for after every step and
    nothing of a broken epoch is saved. A gradient scaler does not help here: it skips gradients
    that overflow, this is about the loss itself.

    Args:
        output_dir: folder of the run, which the message names.
    """

    def __init__(self, output_dir: str) -> None:
        self.output_dir = output_dir
        self._first = torch.zeros((), dtype=torch.int64)

    def attach(self, engine: Engine) -> None:
        """Register the handler with the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note)
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=READ_EVERY), self._stop)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._stop)

    def _note(self, engine: Engine) -> None:
        loss = torch.as_tensor(_LOSS(engine.state.output)).detach()
        first, step = self._first.to(loss.device), torch.full_like(self._first, engine.state.iteration)
        bad = ~torch.isfinite(loss).all() & (first == 0)
        self._first = torch.where(bad, step.to(loss.device), first)

    def _stop(self, engine: Engine) -> None:
        if step := int(self._first.cpu()):
            raise UserError(
                f"{self.output_dir}: the loss of step {step} (epoch {engine.state.epoch}) is not finite; expected: a "
                "lower --learning_rate or --amp false; what earlier epochs left stays and can be resumed"
            )
