"""Read and write a checkpoint with its metadata, and check by SHA-256 that they belong together.

`model.pt` is a state dict and `model.json` its metadata: the network, its preprocessing, operating
point, data and figures. Every entry builds network and preprocessing from them (`building`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..files import read_json, sha256, unfinished_folder, write_json
from ..finite import check_numbers, check_weights, load_weights, save_tensors
from ..schema import check_content
from ..settings import flag
from ..transforms.slice_input import DEFAULTS
from .metadata_schema import METADATA_FORMAT, Metadata, OperatingPoint

OPERATING_POINT: dict[str, Any] = OperatingPoint().model_dump()
"""Defaults of checkpoint metadata."""
LESION_FREE, LESION_FREE_UNITS = "lesion_free", ("percent_of_lungs", "ml")
"""Key in "calibration" of what is marked on volumes without infection, and in which units."""
CURVE = "curve"
"""Key in "calibration" of the reliability of the probabilities."""
TARGETS = "targets"
"""Key of `INFECTION_AND_LUNGS`, for a network that finds both."""
BESIDE_STEPS = ("patch_size", "prior")
"""What metadata say about a network's input that is no step of `Preprocessing`."""
SWITCHES = ("z_score", "lung_only")
MAY_BE_UNDEFINED = ("figures", "data")
"""What may hold NaN in checkpoint metadata: a measure without a case that defines it."""


def metadata_path(checkpoint: str | Path) -> Path:
    """Return where the metadata of a checkpoint lies: the same name with the suffix .json."""
    return Path(checkpoint).with_suffix(".json")


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy weights with their metadata."""
    shutil.copy(source, target)
    shutil.copy(metadata_path(source), metadata_path(target))


def write_checkpoint(checkpoint: str | Path, weights: Mapping[str, torch.Tensor], **metadata: Any) -> None:
    """Write weights and their metadata; both are complete before either appears, metadata first.

    Args:
        checkpoint: the weights' file; the metadata lies beside it.
        weights: state dict.
        **metadata: see `write_metadata`.

    Raises:
        UserError: if a number of the weights makes no sense, see `check_weights`.
    """
    target = Path(checkpoint)
    check_weights(weights, target)
    with unfinished_folder(target.parent) as folder:
        temporary = folder / target.name
        save_tensors(dict(weights), temporary)
        write_metadata(temporary, **metadata)
        metadata_path(temporary).replace(metadata_path(target))
        temporary.replace(target)


def write_metadata(
    checkpoint: str | Path,
    network: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    data: Mapping[str, Any],
    figures: Mapping[str, Any],
    operating_point: Mapping[str, Any] = OPERATING_POINT,
    **further: Mapping[str, Any] | Sequence[str] | str | None,
) -> None:
    """Write the metadata of a checkpoint that lies on the disk.

    Args:
        checkpoint: the weights.
        network: {"name", "arguments"}, see `create_network`.
        preprocessing: arguments of `Preprocessing`: size, window, intensity, and what differs from
            its defaults; "patch_size" (columns, rows, slices) if the network sees patches of
            volumes and not slices; "prior" (what it was in training) if it sees an infection map
            beside the image.
        data: what it was trained on: name, split, fold, synthetic and what else is known.
        figures: validation figures, each with what it was measured on.
        operating_point: "threshold", the decision threshold; "smallest_lesion_mm3", volume below
            which a connected lesion is left out of a scan's mask; "test_time_flips", see
            `average_over_flips`; "least_slice_share", minimum positive fraction of a slice with
            infection; "least_views_agree_percent", see `choose_views_limit`;
            "through_plane_mm", see `neighbour_weights`.
        **further: what else is known, see `calibrate`: "training", the "size" of its slices where
            it has changed since; "training_precision", see `precision_name`; "calibration";
            "familiarity", see `OODScore`; "parent" and "teacher", see `describe_parent`; "targets",
            `INFECTION_AND_LUNGS` of a network that finds both.
    """
    metadata = {
        "format": METADATA_FORMAT,
        "sha256": sha256(checkpoint),
        "network": dict(network),
        "preprocessing": dict(preprocessing),
        "operating_point": {**OPERATING_POINT, **operating_point},
        "data": dict(data),
        "figures": dict(figures),
        **{key: value for key, value in further.items() if value is not None},
    }
    write_json(metadata_path(checkpoint), metadata)


def read_metadata(checkpoint: str | Path) -> dict[str, Any]:
    """Read the metadata of a checkpoint, and check that they belong to its weights.

    Args:
        checkpoint: path of the weights.

    Returns:
        The metadata, with defaults for what an earlier version left out.

    Raises:
        UserError: if the weights or the metadata are absent, unreadable, do not belong together, or
            hold numbers that make no sense, see `check_weights`.
    """
    return read_checkpoint(checkpoint)[0]


def read_checkpoint(checkpoint: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read the metadata and the state dict of a checkpoint, see `read_metadata`."""
    weights = Path(checkpoint)
    if not weights.is_file():
        raise UserError(
            f"{weights}: no such weights; expected: a trained checkpoint named by --checkpoint (--weights) "
            "(`make demo` trains one on synthetic scans, `run training` on yours)"
        )
    metadata = stated_metadata(weights)
    found = sha256(weights)
    if found != metadata["sha256"]:
        raise UserError(
            f"{weights}: sha256 is {found[:12]}..., its metadata says {str(metadata['sha256'])[:12]}...; expected: the "
            "weights that the metadata was written for (copy both files again, or resume the run that was killed)"
        )
    metadata["operating_point"] = {**OPERATING_POINT, **metadata["operating_point"]}
    metadata["preprocessing"] = completed_preprocessing(metadata["preprocessing"], metadata_path(weights))
    return metadata, load_weights(weights)


def stated_metadata(checkpoint: str | Path) -> dict[str, Any]:
    """Read the metadata of a checkpoint without its weights, which `read_metadata` compares.

    Raises:
        UserError: if the metadata are absent, unreadable or hold numbers that make no sense.
    """
    path = metadata_path(checkpoint)
    if not path.is_file():
        raise UserError(
            f"{checkpoint}: its metadata {path.name} is missing; expected: weights with the metadata beside them"
        )
    try:
        metadata = read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error}); expected: the metadata that training wrote") from None
    if isinstance(metadata, dict):
        check_numbers({key: value for key, value in metadata.items() if key not in MAY_BE_UNDEFINED}, path)
    check_content(Metadata, metadata, path)
    return dict(metadata)


def completed_preprocessing(preprocessing: Mapping[str, Any], name: str | Path = "metadata") -> dict[str, Any]:
    """Return the preprocessing with every default as JSON holds it, to apply and to compare.

    What is null is as if it were left out.
    Version 0.10.0 recorded a switch from its command line as text for networks for volumes.

    Args:
        preprocessing: what metadata state, see `write_metadata`.
        name: what messages call the metadata.

    Raises:
        UserError: if a switch is neither true nor false.
    """
    stated = {key: value for key, value in preprocessing.items() if value is not None}
    completed: dict[str, Any] = json.loads(json.dumps({**DEFAULTS, **stated}))
    return completed | {key: flag(completed[key], f"{name}: {key}") for key in SWITCHES}
