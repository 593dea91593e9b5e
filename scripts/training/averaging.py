"""Exponential moving average (EMA) of a training's weights."""

from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from torch import nn

from ..errors import UserError
from ..settings import number
from .processes import unwrapped


class WeightAverage:
    """Ignite handler that keeps an exponential moving average (EMA) of a training's weights.

    The EMA begins with the weights that the training begins with, and includes normalisation
    statistics. After every step EMA <- decay * EMA + (1 - decay) * weights, where 1 - decay is
    `momentum`. The EMA is validated and kept as the best; the network itself goes on training.
    Ignite's `EMAHandler` does the averaging. Without an EMA the network is validated as it is, and
    never its wrapper, which would start a collective in every forward pass: processes have
    different numbers of validation batches.

    Args:
        network: the network that is trained; a DistributedDataParallel wrapper is taken off.
        momentum: 1 - EMA decay, such as 0.01 for a memory of about a hundred steps; 0: no EMA.

    Raises:
        UserError: if the momentum is no number from 0 to below 1.
    """

    def __init__(self, network: nn.Module, momentum: float | str = 0.0) -> None:
        chosen = number("weight_average", momentum, "1 - EMA decay, from 0 to below 1", lambda value: 0 <= value < 1)
        self._handler = EMAHandler(network, momentum=chosen, handle_buffers="update") if chosen else None
        self.network: nn.Module = self._handler.ema_model if self._handler else unwrapped(network)

    def attach(self, engine: Engine) -> None:
        """Register the handler with the trainer."""
        if self._handler:
            engine.add_event_handler(Events.STARTED, self._begin, self._handler)
            self._handler.attach(engine)

    def _begin(self, engine: Engine, handler: EMAHandler) -> None:
        """Take over what was loaded into the network after the average was made."""
        self.network.load_state_dict(handler.model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return the average; nothing where there is none."""
        return self.network.state_dict() if self._handler else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the average of `state_dict`.

        Raises:
            UserError: if one of the two trainings has an average and the other has not.
        """
        if bool(state) != bool(self._handler):
            raise UserError(f"weight_average: the run began {'with' if state else 'without'} it; expected: the same")
        if self._handler:
            self.network.load_state_dict(state)
