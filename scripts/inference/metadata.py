"""Read and write a checkpoint with its metadata, and check that they belong together.

`model.pt` is a state dict and `model.json` its metadata: the network, its preprocessing, operating
point, data and figures. Every entry builds network and preprocessing from them (`building`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..files import sha256, unfinished_folder, write_json
from ..finite import check_numbers, check_weights, load_weights
from ..networks.registry import is_data
from ..settings import flag
from ..transforms.slice_input import DEFAULTS

METADATA_FORMAT = 1
OPERATING_POINT: dict[str, Any] = {
    "threshold": 0.5,
    "smallest_lesion_mm3": 0.0,
    "test_time_flips": False,
    "least_slice_share": 0.0,
    "least_views_agree_percent": None,
}
"""Defaults of checkpoint metadata: the decision threshold, the smallest lesion kept, whether logits
are the mean over flips, the fraction of a slice that must be marked for it to count, and the
agreement of the flips below which a border is unsure (None: not known)."""
LESION_FREE, LESION_FREE_UNITS = "lesion_free", ("percent_of_lungs", "ml")
"""Key in "calibration" of what is marked on volumes without infection, and in which units."""
REQUIRED = ("format", "sha256", "network", "preprocessing", "operating_point", "data")
BESIDE_STEPS = ("patch_size", "prior")
"""What metadata say about a network's input that is no step of `Preprocessing`."""
SWITCHES = ("z_score", "lung_only")
MAY_BE_UNDEFINED = ("figures", "data")
"""What may hold NaN in checkpoint metadata: a measure without a case that defines it."""


def metadata_path(checkpoint: str | Path) -> Path:
    """Return where the metadata of a checkpoint lies: the same name with the suffix .json."""
    return Path(checkpoint).with_suffix(".json")


def write_checkpoint(checkpoint: str | Path, weights: Mapping[str, torch.Tensor], **metadata: Any) -> None:
    """Write weights and their metadata; both are complete before either appears.

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
        torch.save(dict(weights), temporary)
        write_metadata(temporary, **metadata)
        temporary.replace(target)
        metadata_path(temporary).replace(metadata_path(target))


def write_metadata(
    checkpoint: str | Path,
    network: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    data: Mapping[str, Any],
    figures: Mapping[str, Any],
    operating_point: Mapping[str, Any] = OPERATING_POINT,
    **further: Mapping[str, Any] | str | None,
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
            infection; "least_views_agree_percent", see `choose_views_limit`.
        **further: what else is known, see `calibrate`: "training", the "size" of its slices where
            it has changed since; "training_precision", see `precision_name`; "calibration";
            "familiarity", see `OODScore`; "parent" and "teacher", see `describe_parent`.
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
    weights, path = Path(checkpoint), metadata_path(checkpoint)
    if not weights.is_file():
        raise UserError(
            f"{weights}: no such weights; expected: a trained checkpoint named by --checkpoint (--weights) "
            "(`make demo` trains one on synthetic scans, `run training` on yours)"
        )
    if not path.is_file():
        raise UserError(
            f"{weights}: its metadata {path.name} is missing; expected: weights with the metadata beside them"
        )
    metadata = _read_json(path)
    found = sha256(weights)
    if found != metadata["sha256"]:
        raise UserError(
            f"{weights}: sha256 is {found[:12]}..., its metadata says {str(metadata['sha256'])[:12]}...; expected: the "
            "weights that the metadata was written for (copy both files again, or resume the run that was killed)"
        )
    metadata["operating_point"] = {**OPERATING_POINT, **metadata["operating_point"]}
    metadata["preprocessing"] = completed_preprocessing(metadata["preprocessing"], path)
    return metadata, load_weights(weights)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error}); expected: the metadata that training wrote") from None
    missing = [key for key in REQUIRED if not isinstance(metadata, dict) or key not in metadata]
    if missing or metadata["format"] != METADATA_FORMAT:
        raise UserError(
            f"{path}: lacks {missing or 'a known format'}; expected: checkpoint metadata of format {METADATA_FORMAT}"
        )
    _check_entries(metadata, path)
    check_numbers({key: value for key, value in metadata.items() if key not in MAY_BE_UNDEFINED}, path)
    return dict(metadata)


def _check_entries(metadata: Mapping[str, Any], path: Path) -> None:
    """Refuse entries that are no names and values, and text that a config would evaluate."""
    for key in ("network", "preprocessing", "operating_point", "data"):
        if not isinstance(metadata[key], dict):
            raise UserError(f"{path}: {key} is {metadata[key]!r}; expected: names and values")
    for key in ("preprocessing", "operating_point"):
        if not is_data(metadata[key]):
            raise UserError(
                f"{path}: {key} is {metadata[key]!r}; expected: values, and no text that begins with $, @ or %"
            )
    _check_lesion_free(metadata, path)
    known = (*DEFAULTS, *BESIDE_STEPS)
    if unknown := sorted(set(metadata["preprocessing"]) - set(known)):
        raise UserError(f"{path}: preprocessing has {', '.join(unknown)}; expected: {', '.join(known)}")


def _check_lesion_free(metadata: Mapping[str, Any], path: Path) -> None:
    """Refuse another form of "calibration.lesion_free" than `describe_marked` gives."""
    calibration = metadata.get("calibration")
    if not isinstance(calibration, dict) or (stated := calibration.get(LESION_FREE)) is None:
        return
    lists = [stated.get(key) for key in LESION_FREE_UNITS] if isinstance(stated, dict) else [None]
    if not all(isinstance(values, list) and all(map(_is_amount, values)) for values in lists):
        expected = "volumes (a number), percent_of_lungs and ml (lists of numbers, 0 or more)"
        raise UserError(f"{path}: calibration.lesion_free is {stated!r}; expected: {expected}")


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def completed_preprocessing(preprocessing: Mapping[str, Any], name: str | Path = "metadata") -> dict[str, Any]:
    """Return the preprocessing with every default as JSON holds it, to apply and to compare.

    Version 0.10.0 recorded a switch from its command line as text for networks for volumes.

    Args:
        preprocessing: what metadata state, see `write_metadata`.
        name: what messages call the metadata.

    Raises:
        UserError: if a switch is neither true nor false.
    """
    completed: dict[str, Any] = json.loads(json.dumps({**DEFAULTS, **preprocessing}))
    return completed | {key: flag(completed[key], f"{name}: {key}") for key in SWITCHES}
