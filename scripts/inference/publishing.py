"""Write weights for a repository, in half precision if the masks of unseen cases stay the same."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..files import read_json
from ..metrics import dice
from .metadata import metadata_path, write_checkpoint
from .predictor import Predictor
from .unseen_cases import check_data, predict_cases, unseen_cases

MOST_CHANGED_VOXELS = 1e-4
"""Fraction of the voxels of a case that may change between infection and background."""
MOST_CHANGED_DICE = 1e-3
"""By how much the Dice of a case may change."""
MOST_MB = 80
"""All weights in a folder of weights to distribute, in MB of 2^20 bytes."""


def publish(weights: Path, target: Path, data: str, device: torch.device) -> dict[str, float]:
    """Write weights with their metadata, in half precision if `is_faithful`, else as they are.

    Convolutions are halved; biases and normalisation, which are small and shift whole maps, are
    not.

    Args:
        weights: trained weights, calibrated or not.
        target: the weights to write; their metadata goes beside them.
        data: prepared data set that they were trained on; the cases of their validation fold are
            compared.
        device: where networks work.

    Returns:
        The largest changes of a case by half precision: "voxels" (fraction) and "dice".

    Raises:
        UserError: if there is a target, or checkpoint metadata of its name, already, the weights
            were trained on other data, or all weights in the target's folder would be too large.
    """
    if target.suffix != ".pt":
        raise UserError(f"{target}: expected: a new file with the suffix .pt")
    whole = Predictor.load(weights, device)
    kept = {key: value for key, value in whole.metadata.items() if key not in ("format", "sha256")}
    for path in (target, metadata_path(target)):
        if path.exists() and not (path.suffix == ".json" and _left_by_a_kill(path, kept)):
            raise UserError(f"{path}: exists; expected: a new file, and no metadata of its name")
    check_data(weights, whole.metadata, data)
    state = {key: _half(value) for key, value in whole.network.state_dict().items()}
    _check_size(target, weights, state)  # before the comparison, which takes long
    halved = Predictor(copy.deepcopy(whole.network), whole.metadata, device)
    halved.network.load_state_dict(state)
    changed = _compare(whole, halved, data)
    if not is_faithful(changed):
        state = {key: value.cpu() for key, value in whole.network.state_dict().items()}
        _check_size(target, weights, state)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(target, state, **kept)
    return changed


def _left_by_a_kill(path: Path, kept: Mapping[str, Any]) -> bool:
    """Whether metadata are those that `publish` writes, right before their weights."""
    try:
        found = read_json(path)
    except ValueError:
        return False
    own = {"format", "sha256"}
    same = isinstance(found, dict) and {key: value for key, value in found.items() if key not in own}
    return json.dumps(same, sort_keys=True) == json.dumps(kept, sort_keys=True)


def _compare(whole: Predictor, halved: Predictor, data: str) -> dict[str, float]:
    changed = {"voxels": 0.0, "dice": 0.0}
    threshold = whole.metadata["operating_point"]["threshold"]
    for _, maps, label in predict_cases(unseen_cases(data, whole.metadata), [whole, halved]):
        before, after = (one >= threshold for one in maps)
        truth, *masks = (one.float().flatten(1)[None, None] for one in (label >= 0.5, before, after))
        scores = [float(dice(mask, truth)) for mask in masks]
        found = {"voxels": float((before != after).float().mean()), "dice": abs(scores[0] - scores[1])}
        changed = {key: max(value, found[key]) for key, value in changed.items()}
    return changed


def is_faithful(changed: dict[str, float]) -> bool:
    """Return whether half precision changes so little that weights are written in it."""
    return changed["voxels"] <= MOST_CHANGED_VOXELS and changed["dice"] <= MOST_CHANGED_DICE


def _check_size(target: Path, weights: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse what would make the weights in the target's folder, but for the source, too large."""
    beside = [path for path in sorted(target.parent.glob("*.pt")) if not path.samefile(weights)]
    new = sum(value.nbytes for value in state.values())
    size = (new + sum(path.stat().st_size for path in beside)) / 2**20
    if size > MOST_MB:
        others = f" with {', '.join(path.name for path in beside)} beside it" if beside else ""
        raise UserError(
            f"{target}: {new / 2**20:.1f} MB{others} make {size:.1f} MB; expected: at most {MOST_MB} MB in all"
        )


def _half(value: Tensor) -> Tensor:
    return (value.half() if value.is_floating_point() and value.ndim > 1 else value).cpu()
