"""Weights for a repository: in half precision, if the masks of cases they did not see stay the same."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..data.datalist import select_cases
from ..errors import UserError
from ..metrics import dice
from .calibration import check_data, probabilities_and_label
from .metadata import metadata_path, trained_network, write_checkpoint

MOST_CHANGED_VOXELS = 1e-4
"""Share of the voxels of a case that may change between infection and background."""
MOST_CHANGED_DICE = 1e-3
"""By how much the Dice of a case may change."""


def publish(weights: Path, target: Path, data: str, device: torch.device) -> dict[str, float]:
    """Writes weights with their metadata, in half precision if masks of unseen cases stay what they are.

    Convolutions are halved; biases and normalisation, which are small and shift whole maps, are
    not.

    Args:
        weights: trained weights, calibrated or not.
        target: the weights to write; their metadata goes beside them.
        data: prepared data set that they were trained on; the cases of their validation fold are
            compared.
        device: where networks work.

    Returns:
        The largest changes of a case by half precision: "voxels" (share) and "dice". Beyond
        `MOST_CHANGED_VOXELS` or `MOST_CHANGED_DICE` the weights were written as they are; see
        `is_faithful`.

    Raises:
        UserError: if there is a target, or checkpoint metadata of its name, already, or the weights
            were trained on other data.
    """
    if target.suffix != ".pt":
        raise UserError(f"{target}: expected: a new file with the suffix .pt")
    for path in (target, metadata_path(target)):
        if path.exists():
            raise UserError(f"{path}: exists; expected: a new file, and no metadata of its name")
    network, metadata = trained_network(weights, device)
    halved, _ = trained_network(weights, device)
    state = {key: _half(value) for key, value in network.state_dict().items()}
    halved.load_state_dict(state)
    check_data(weights, metadata, data)
    changed = {"voxels": 0.0, "dice": 0.0}
    threshold, flips = (metadata["operating_point"][key] for key in ("threshold", "test_time_flips"))
    for case in tqdm(select_cases(data, "validation", metadata["data"].get("fold"), labelled=True), unit="case"):
        maps, label = probabilities_and_label(case, [network, halved], metadata, flips, device)
        before, after = (one >= threshold for one in maps)
        truth, *masks = (one.float().flatten(1)[None, None] for one in (label >= 0.5, before, after))
        scores = [float(dice(mask, truth)) for mask in masks]
        found = {"voxels": float((before != after).float().mean()), "dice": abs(scores[0] - scores[1])}
        changed = {key: max(value, found[key]) for key, value in changed.items()}
    if not is_faithful(changed):
        state = {key: value.cpu() for key, value in network.state_dict().items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(
        target, state, **{key: value for key, value in metadata.items() if key not in ("format", "sha256")}
    )
    return changed


def is_faithful(changed: dict[str, float]) -> bool:
    """Whether half precision changes so little that weights are written in it."""
    return changed["voxels"] <= MOST_CHANGED_VOXELS and changed["dice"] <= MOST_CHANGED_DICE


def _half(value: Tensor) -> Tensor:
    return (value.half() if value.is_floating_point() and value.ndim > 1 else value).cpu()
