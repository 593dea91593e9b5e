"""Choose between the shipped weights: compact for any processor, full for CUDA if no worse."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import UserError
from ..settings import default_device
from ..version import BUNDLE
from .metadata import stated_metadata

logger = logging.getLogger(__name__)

MODELS = BUNDLE / "models"
COMPACT, FULL, OWN, AUTO = "compact", "full", "own", "auto"
FILES = {COMPACT: "model.pt", FULL: "full.pt"}
"""Files of the shipped weights in `MODELS` by the model's name."""
CLASS_WEIGHTS = MODELS / "classes.pt"
"""The multi-class network that `classify` applies."""


@dataclass(frozen=True)
class Choice:
    """The weights of a run and why; shipped ones are looked up where `path` is asked for.

    Attributes:
        name: of the model: "compact", "full", or "own" for weights of the user.
        reason: why, in words that follow the name and a colon.
        own: the user's weights.
    """

    name: str
    reason: str
    own: Path | None = None

    @property
    def path(self) -> Path:
        """Return the weights in this installation; UserError as `shipped_weights`."""
        return self.own or shipped_weights(self.name)

    def describe(self) -> dict[str, str]:
        """Return what reports say of it: {"name", "reason"}."""
        return {"name": self.name, "reason": self.reason}


def choose_model(
    model: str = AUTO,
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
    folder: Path | None = None,
) -> Choice:
    """Choose the weights of a run.

    Args:
        model: "compact", "full", or "auto": full on CUDA where its weights are there and did not
            do worse in cross-validation, else compact. On MPS neither speed nor memory of the full
            network has been measured.
        weights: the user's own, in place of shipped ones.
        device: a torch device; None: the first that is available.
        folder: where shipped weights lie; None: `MODELS`.

    Raises:
        UserError: for an unknown model, a model beside `weights`, or a model that is not there.

    >>> choose_model(device="cpu")
    Choice(name='compact', reason='chosen because the device is cpu, not CUDA', own=None)
    """
    if model not in (AUTO, *FILES):
        raise UserError(f"model is {model!r}; expected: {AUTO}, {', '.join(FILES)}")
    if weights is not None:
        if model != AUTO:
            raise UserError(f"both a model ({model}) and weights ({weights}); expected: one of them")
        return Choice(OWN, "weights that were named", Path(weights))
    if model != AUTO:
        shipped_weights(model, folder)
        return Choice(model, "as the setting model says")
    kind = str(device or default_device()).partition(":")[0]
    if kind != "cuda":
        return Choice(COMPACT, f"chosen because the device is {kind}, not CUDA")
    if not is_there(FULL, folder):
        return Choice(COMPACT, f"chosen because there is no {FILES[FULL]} beside it")
    if (worse := _worse_full(folder)) is not None:
        return Choice(COMPACT, worse)
    return Choice(FULL, "chosen because a CUDA device is there")


def _worse_full(folder: Path | None) -> str | None:
    """Return how far the full weights did worse, if the metadata of both say what they reach."""
    compact, full = (_volume_dice(name, folder) for name in (COMPACT, FULL))
    if compact is None or full is None or full >= compact:
        return None
    return f"chosen because its mean Dice of volumes in cross-validation is {compact:.3f}, that of full {full:.3f}"


def _volume_dice(name: str, folder: Path | None) -> float | None:
    calibration = stated_metadata(shipped_weights(name, folder)).get("calibration") or {}
    volumes = (calibration.get("dice") or {}).get("volumes")
    return volumes and float(volumes["at_threshold"])


def shipped_weights(name: str, folder: Path | None = None) -> Path:
    """Return the file of a shipped model.

    Raises:
        UserError: if the full weights are not there; what reads the compact ones says so itself.
    """
    path = (folder or MODELS) / FILES[name]
    if name == FULL and not is_there(FULL, folder):
        raise UserError(
            f"{path}: not there; expected: the full weights, {path.name} and {path.stem}.json, copied from the "
            "repository or wheel of this version, or --model compact"
        )
    return path


def is_there(name: str, folder: Path | None = None) -> bool:
    """Return whether a shipped model is in this installation."""
    return ((folder or MODELS) / FILES[name]).is_file()


def checkpoint_of(model: str, device: str | torch.device, bundle_root: str) -> str:
    """Return the checkpoint of `run inference`; see `choose_model`."""
    folder = Path(bundle_root) / MODELS.name
    return str(shipped_weights(choose_model(model, device=device, folder=folder).name, folder))


def log_choice(model: str, device: str | torch.device, bundle_root: str, checkpoint: str) -> None:
    """Log the model of `run inference` and why.

    Raises:
        UserError: if a model was asked for beside a checkpoint of the user's own. The config's
            default, compact, gives way to it.
    """
    if checkpoint == checkpoint_of(model, device, bundle_root):
        choice = choose_model(model, None, device, Path(bundle_root) / MODELS.name)
    else:
        choice = choose_model(AUTO if model == COMPACT else model, checkpoint)
    logger.info(f"model {choice.name}: {choice.reason} ({checkpoint})")
