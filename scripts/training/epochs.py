"""Seed an epoch's randomness, and validate the last epoch."""

from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import ValidationHandler as EveryEpochs

from .processes import share_buffers


class EpochSeed:
    """Ignite handler of the trainer that makes an epoch's randomness a function of (seed, epoch).

    Sampler and data set draw their order, balance and augmentation from the epoch's number, and
    torch's generator (dropout) is seeded with it. A run that was killed and resumed repeats an
    uninterrupted one, whatever the number of workers, without saving random states.

    Args:
        seed: seed of the run.
        listeners: objects with `set_epoch(epoch)`: data set, sampler.
        rank: process of a distributed training; each draws its own dropout.
    """

    def __init__(self, seed: int, listeners: Sequence[Any], rank: int = 0) -> None:
        self.seed = seed
        self.rank = rank
        self.listeners = list(listeners)

    def attach(self, engine: Engine) -> None:
        """Register the handler with the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed the epoch that starts."""
        for listener in self.listeners:
            listener.set_epoch(engine.state.epoch)
        torch.manual_seed(self.seed * 1_000_003 + self.rank * 100_003 + engine.state.epoch)


class ValidationHandler(EveryEpochs):
    """Validate as MONAI's handler of the same name does, and after the last epoch too.

    All processes of a distributed training validate with the buffers of rank 0, which are saved.
    """

    def attach(self, engine: Engine) -> None:
        """Register the handler with the trainer."""

        def is_due(trainer: Engine, epoch: int) -> bool:
            return epoch % self.interval == 0 or epoch == trainer.state.max_epochs

        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=is_due), self)

    def __call__(self, engine: Engine) -> None:
        """Validate the epoch that has ended."""
        share_buffers(self.validator.network)
        super().__call__(engine)
