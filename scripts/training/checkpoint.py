"""Checkpoints of a run: the state to resume from, and the kept weights with their metadata."""

import logging
import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.transforms import Transform
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ..errors import UserError
from ..files import locked, write_atomic
from ..finite import check_weights, save_tensors
from ..inference.metadata import completed_preprocessing, write_checkpoint
from ..metrics import json_ready
from ..networks.registry import same_network
from ..settings import amount
from ..transforms.steps import flattened, settings
from .event_files import forget_after
from .fine_tuning import check_same_as_parent
from .processes import is_main_process, unwrapped
from .run_folder import BEST, CURVES, LAST

logger = logging.getLogger(__name__)

KEEPS = ("best", "last")
PRECISION = "training_precision"
_IMPLEMENTATION = ("params", "fused", "foreach", "capturable", "differentiable")  # of an optimizer: same steps


class StartWeights:
    """Ignite handler that starts a training from the weights of a checkpoint.

    It belongs before `RunCheckpoint`, whose state goes before it when a run is resumed.

    Args:
        checkpoint: weights with their metadata, or None for random ones.
        network: what is trained.
        metadata: what its metadata will say, of which "network" and "preprocessing" have to be the
            checkpoint's; None: the network's own `spec` alone.
        allow_differences: whether they may differ, as far as the weights fit.

    Raises:
        UserError: if the weights have no usable metadata, or differ and that is not allowed.
    """

    def __init__(
        self,
        checkpoint: str | None,
        network: nn.Module,
        metadata: Mapping[str, Any] | None = None,
        allow_differences: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        self.network = unwrapped(network)
        if self.checkpoint is not None:
            described = metadata or {"network": getattr(self.network, "spec", None)}
            settings = (described["network"], described.get("preprocessing"))
            check_same_as_parent(self.checkpoint, *settings, allow_differences)

    def attach(self, engine: Engine) -> None:
        """Register the handler with the trainer."""
        if self.checkpoint is not None:
            engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load the weights."""
        weights = torch.load(str(self.checkpoint), map_location="cpu", weights_only=True)
        try:
            self.network.load_state_dict(weights)
        except RuntimeError as error:  # only where differences were allowed
            raise UserError(f"{self.checkpoint}: {error}; expected: weights that fit the network") from None
        logger.info(f"started from {self.checkpoint}")


class RunCheckpoint:
    """Ignite handler of the trainer: saves epochs, resumes from the last one that is on the disk.

    The files are written after the first epoch of a process, then once `save_interval` has passed,
    at the end, and when Ctrl-C or an error ends the run. Between two writes the last complete epoch
    and the weights to keep wait in the host's memory. So `model.pt` is never from an epoch beyond
    `last.pt`, apart from a process killed between these two.

    It belongs last among the trainer's handlers: what it saves is an epoch with its validation and
    schedule. `last.pt` holds the network, the optimizer, the gradient scaler and every other object
    with a state, the epoch and the best metric. Random states are not in it because nothing carries
    one from epoch to epoch: the order, the augmentation and dropout of an epoch are seeded by
    (seed, epoch), see `EpochSeed`. Both files are written beside and renamed, so a process killed
    at any moment leaves a complete state. The folder is locked while the run goes on: a second one
    would replace the files of the first.

    Args:
        output_dir: folder of the run.
        network: what is trained; a DistributedDataParallel wrapper is taken off.
        evaluated: the model that is validated and whose best weights are kept: the network or its
            EMA.
        evaluator: engine of the validation, whose key metric decides what is best.
        objects: what else has a state: optimizer, schedule, history.
        metadata: the metadata's content apart from the figures, see `write_metadata`.
        resume: whether to go on from `last.pt` where there is one.
        seed: seed of the run; a run goes on with the seed, data, preprocessing, optimizer and kind
            of schedule that it began with.
        steps: what else a run goes on with: modules such as the loss, transforms, and plain values.
        keep: checkpoint policy: "best", the epoch with the best key metric, or "last", the last
            epoch, so that the validation fold chooses nothing.
        save_interval: seconds between two writes of the files; 0: after every epoch.

    Raises:
        UserError: for another choice of what to keep, or an interval that is no number from 0.
    """

    def __init__(
        self,
        output_dir: str,
        network: nn.Module,
        evaluated: nn.Module,
        evaluator: Engine,
        objects: Mapping[str, Any],
        metadata: Mapping[str, Any],
        resume: bool = False,
        seed: int = 0,
        steps: Mapping[str, Any] | None = None,
        keep: str = "best",
        save_interval: float | str = 0.0,
    ) -> None:
        if keep not in KEEPS:
            raise UserError(f"keep is {keep!r}; expected: {', '.join(KEEPS)}")
        self.keep = keep
        self.last = Path(output_dir) / LAST
        self.best = Path(output_dir) / BEST
        self.network = unwrapped(network)
        self.evaluated = unwrapped(evaluated)
        self.evaluator = evaluator
        self.objects = dict(objects)
        self.metadata = dict(metadata)
        self.resume = resume
        described = {name: _stated(value) for name, value in (steps or {}).items()}
        self._recorded_since = (PRECISION, *_kinds(self.objects), *described)  # earlier versions did not
        self.identity = {**self.metadata, "seed": seed, **_kinds(self.objects), **described}
        self.save_interval = amount("save_interval", save_interval, "seconds, 0 or more")
        self._lock = ExitStack()
        self._written: float | None = None
        self._best: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._last: dict[str, Any] | None = None

    def attach(self, engine: Engine) -> None:
        """Register the handler with the trainer."""
        engine.add_event_handler(Events.STARTED, self._claim)
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)
        engine.add_event_handler(Events.COMPLETED, self.write)
        engine.add_event_handler(Events.COMPLETED, self._lock.close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._rescue)

    def _claim(self) -> None:
        if is_main_process():
            self._lock.enter_context(locked(self.last.parent, wait=False))

    def save(self, engine: Engine) -> None:
        """Save the epoch that has just ended, on the disk or in memory; on rank 0 only."""
        if not is_main_process():
            return
        name = f"{self.last.parent}, epoch {engine.state.epoch}"
        check_weights(self.network.state_dict(), name)  # else the epoch before is what remains
        state = self.evaluator.state
        due = self._written is None or time.monotonic() - self._written >= self.save_interval
        unvalidated = state.best_metric_epoch == -1  # no validation yet, or no validation cases
        if self.keep == "last" or unvalidated or state.best_metric_epoch == engine.state.epoch:
            validated = not unvalidated and state.epoch == engine.state.epoch
            figures = self._figures(engine) if validated else {"epoch": engine.state.epoch}
            self._best = _copied(self.evaluated.state_dict()), figures
        self._last = self._state(engine) if due else _copied(self._state(engine))
        if due:
            self.write()

    def write(self) -> None:
        """Write what was saved since the last write: the kept weights, then the last state."""
        if self._best is not None:
            weights, figures = self._best
            write_checkpoint(self.best, weights, figures=figures, **self.metadata)
        if self._last is not None:
            content = self._last
            write_atomic(self.last, lambda path: save_tensors(content, path))
            self._written = time.monotonic()
        self._best, self._last = None, None

    def _rescue(self, engine: Engine, error: BaseException) -> None:
        """Write the last complete epoch before Ctrl-C or an error ends the run."""
        try:
            self.write()
        except Exception as failed:  # the run's own error is what a person has to hear of
            logger.error(f"{self.last}: the last epoch could not be saved ({failed})")
        self._lock.close()
        raise error from error.__cause__

    def _state(self, engine: Engine) -> dict[str, Any]:
        """Return what `last.pt` holds; its tensors are those of the training."""
        state = self.evaluator.state
        return {
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "ended": time.time(),
            "identity": self.identity,
            "best_metric": float(state.best_metric),
            "best_metric_epoch": state.best_metric_epoch,
            "network": self.network.state_dict(),
            "scaler": engine.scaler.state_dict() if getattr(engine, "scaler", None) else None,
            **{name: value.state_dict() for name, value in self.objects.items()},
        }

    def load(self, engine: Engine) -> None:
        """Take over the state of `last.pt`; without one the training starts at the first epoch."""
        if not self.last.exists():
            logger.info(f"{self.last}: nothing to resume, starting at the first epoch")
            return
        content = torch.load(self.last, map_location="cpu", weights_only=True)
        self._check_identity(content)
        check_weights(content["network"], self.last)
        self.network.load_state_dict(content["network"])
        for name, value in self.objects.items():
            value.load_state_dict(content[name])
        if content["scaler"] is not None and getattr(engine, "scaler", None):
            engine.scaler.load_state_dict(content["scaler"])
        engine.state.epoch = content["epoch"]
        engine.state.iteration = content["iteration"]
        self.evaluator.state.best_metric = content["best_metric"]
        self.evaluator.state.best_metric_epoch = content["best_metric_epoch"]
        if any(getattr(value, "finished", False) for value in self.objects.values()):
            engine.terminate()
        if is_main_process():
            forget_after(self.last.parent / CURVES, content.get("ended", math.inf))
        logger.info(f"resumed after epoch {content['epoch']} of {engine.state.max_epochs}")

    def _check_identity(self, content: Mapping[str, Any]) -> None:
        """Refuse to resume a run with other data, network, seed, loss... than it began with."""
        before, now = (_completed(one) for one in (content["identity"], self.identity))
        for key in self._recorded_since:
            before.setdefault(key, now.get(key))
        changed = [key for key, value in now.items() if key != "network" and before.get(key) != value]
        changed = [f"{key} {before[key]}" if key == PRECISION else key for key in changed]
        changed += [] if same_network(before["network"], self.identity["network"]) else ["network"]
        changed += [
            f"total steps of the {name}"
            for name, value in self.objects.items()
            if hasattr(value, "total_steps") and content[name].get("total_steps") != value.total_steps
        ]
        if changed:
            raise UserError(
                f"{self.last}: began with other settings ({', '.join(changed)}); expected: --resume true with the "
                f"settings that it began with, or another --output_dir (its weights: --checkpoint {self.best})"
            )

    def _figures(self, engine: Engine) -> dict[str, Any]:
        """Return the validation metrics of this epoch, with their number of slices."""
        metrics = {name: round(float(value), 6) for name, value in self.evaluator.state.metrics.items()}
        dataset = self.evaluator.data_loader.dataset
        slices = getattr(dataset, "slices", len(dataset))  # a data set of volumes says how many they hold
        return {
            "epoch": engine.state.epoch,
            "kept": self.keep,
            "split": "validation",
            "slices": slices,
            "validation": json_ready(metrics),  # undefined where no slice has lesion: null
        }


def _kinds(objects: Mapping[str, Any]) -> dict[str, Any]:
    """Return the kinds of objects with a state, and an optimizer's settings before a training."""
    kinds: dict[str, Any] = {}
    for name, value in objects.items():
        kinds[name] = [type(value).__name__]
        if isinstance(value, torch.optim.Optimizer):
            kinds[name] += [
                {key: one for key, one in group.items() if key not in _IMPLEMENTATION and not isinstance(one, Tensor)}
                for group in value.param_groups
            ]
    return kinds


def _described(module: nn.Module) -> dict[str, Any]:
    """Return the kind of a loss, its plain settings and weights, and so of those within it."""
    plain = {name: value for name, value in vars(module).items() if name not in vars(nn.Module())}
    weights = {name: buffer.cpu().tolist() for name, buffer in module.named_buffers(recurse=False)}
    return {
        "kind": type(module).__name__,
        **{name: value for name, value in plain.items() if isinstance(value, bool | int | float | str | list | tuple)},
        **weights,
        **{name: _described(child) for name, child in module.named_children()},
    }


def _stated(value: Any) -> Any:
    """Return what a run goes on with as plain values; of a step that none could state its class."""
    if isinstance(value, nn.Module):
        return _described(value)
    if not isinstance(value, Transform):
        return value
    stated: list[Any] = []
    for step in flattened([value]):
        try:
            stated.append(settings(step))
        except TypeError:
            stated.append(type(step).__name__)
    return stated


def _completed(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity whose preprocessing has every setting: earlier versions recorded fewer."""
    if "preprocessing" not in identity:
        return dict(identity)
    return {**identity, "preprocessing": completed_preprocessing(identity["preprocessing"])}


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state whose tensors are copies on the host, which the training does not change."""
    copied: dict[str, Any] = tree_map_only(Tensor, lambda value: value.detach().to("cpu", copy=True), dict(state))
    return copied
