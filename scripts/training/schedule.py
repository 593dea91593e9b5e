"""Learning-rate cuts and early stopping by what validation says, in one handler.

The paper says: halve the learning rate if the test loss has not improved in 25 epochs, stop after
25 epochs without improvement (Table 1). Taken literally the rate is never halved. The presets are
three readings of it; each stops after so many validations without improvement, of which an epoch
has one, from a learning rate of 1e-4:

* `paper`, 200: halve after 25 epochs, and count the 25 epochs to the stop from the last improvement
  or cut, whichever is later; so the run ends once the rate cannot be cut any further. That is 25
  epochs at each of eight rates: the lowest rate of 1e-6, which the seventh cut reaches, is this
  project's number.
* `official`, 25: what the authors' published code does: one cut to a tenth after 13 validations
  without a better mean Dice, stop after 25.
* `literal`, 25: both 25, with PyTorch's convention that patience 25 cuts at the 26th epoch: the
  stop comes first.

`paper` is the default because it is the only one in which the paper's halving happens, with its
factor, its 25 epochs and its loss. The price is up to 175 epochs beyond Table 1; the best epoch's
weights are kept meanwhile.
"""

import logging
from dataclasses import dataclass
from typing import Any

from ignite.engine import Engine, Events
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from ..errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plateau:
    """When to cut the learning rate and when to stop.

    Attributes:
        monitor: name of the validation metric.
        mode: "min" or "max", what is an improvement of it.
        factor: what a cut multiplies the learning rate with.
        cut_after: validations without improvement before a cut.
        stop_after: validations without improvement before the stop.
        stop_counts_from_cut: whether a cut starts the count to the stop anew.
        max_cuts: largest number of cuts, or None.
        min_lr: lowest learning rate; a rate at it is not cut.
    """

    monitor: str
    mode: str
    factor: float
    cut_after: int
    stop_after: int
    stop_counts_from_cut: bool
    max_cuts: int | None = None
    min_lr: float = 1e-6


PLATEAUS = {
    "paper": Plateau("val_loss", "min", 0.5, cut_after=25, stop_after=25, stop_counts_from_cut=True),
    "official": Plateau(
        "val_mean_dice", "max", 0.1, cut_after=13, stop_after=25, stop_counts_from_cut=False, max_cuts=1
    ),
    "literal": Plateau("val_loss", "min", 0.5, cut_after=26, stop_after=25, stop_counts_from_cut=False),
}


class PlateauSchedule:
    """Ignite handler of the trainer that applies a `Plateau` after every validation.

    It belongs behind the handler that runs the validation.

    Args:
        optimizer: whose learning rates are cut.
        evaluator: engine whose metrics are watched.
        preset: a key of `PLATEAUS`, or a `Plateau`.
        interval: epochs between validations.

    Raises:
        UserError: for an unknown preset.
    """

    def __init__(
        self, optimizer: Optimizer, evaluator: Engine, preset: str | Plateau = "paper", interval: int = 1
    ) -> None:
        if isinstance(preset, str) and preset not in PLATEAUS:
            raise UserError(f"schedule is {preset!r}; expected: {', '.join(PLATEAUS)}")
        self.plateau = PLATEAUS[preset] if isinstance(preset, str) else preset
        self.optimizer = optimizer
        self.evaluator = evaluator
        self.interval = interval
        self.best: float | None = None
        self.since_cut = 0  # validations without improvement, counted for the next cut
        self.since_reset = 0  # the same, counted for the stop
        self.cuts = 0
        self.finished = False

    def attach(self, engine: Engine) -> None:
        """Register the handler with the trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self)

    def __call__(self, engine: Engine) -> None:
        """Cut the rate or end the training by the last validation."""
        value = self.evaluator.state.metrics.get(self.plateau.monitor)
        if value is None:  # no validation cases: nothing to steer by
            return
        self.update(float(value))
        if self.finished:
            logger.info(f"stopped: {self.plateau.monitor} has not improved in {self.since_reset} validations")
            engine.terminate()

    def update(self, value: float) -> None:
        """Take one validation's value and set `finished` where the training should stop."""
        better = self.best is None or (value < self.best if self.plateau.mode == "min" else value > self.best)
        if better:
            self.best, self.since_cut, self.since_reset = value, 0, 0
            return
        self.since_cut += 1
        self.since_reset += 1
        if self.since_cut >= self.plateau.cut_after and self._can_cut():
            self._cut()
        elif self.since_reset >= self.plateau.stop_after:
            self.finished = True

    def _can_cut(self) -> bool:
        allowed = self.plateau.max_cuts is None or self.cuts < self.plateau.max_cuts
        return allowed and any(group["lr"] > self.plateau.min_lr for group in self.optimizer.param_groups)

    def _cut(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = max(group["lr"] * self.plateau.factor, self.plateau.min_lr)
        self.cuts += 1
        self.since_cut = 0
        if self.plateau.stop_counts_from_cut:
            self.since_reset = 0
        logger.info(f"learning rate cut to {self.optimizer.param_groups[0]['lr']:g}")

    def state_dict(self) -> dict[str, Any]:
        """Return the counters; the learning rates are part of the optimizer's state."""
        names = ("best", "since_cut", "since_reset", "cuts", "finished")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the counters of `state_dict`."""
        for name, value in state.items():
            setattr(self, name, value)


class OneCycle(OneCycleLR):
    """Ignite handler of the trainer that runs one cycle of the learning rate over a whole training.

    Args:
        optimizer: whose learning rates follow the cycle; the momentum follows it the other way.
        peak: largest learning rate, after a fifth of the steps.
        steps: steps of the optimizer in the whole training.
    """

    def __init__(self, optimizer: Optimizer, peak: float, steps: int) -> None:
        rising = 0.25 if steps == 5 else 0.2  # torch divides by the rising steps less one: a fifth of five is one
        super().__init__(optimizer, max_lr=peak, total_steps=steps, pct_start=rising)

    def attach(self, engine: Engine) -> None:
        """Register the handler with the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: self.step())
