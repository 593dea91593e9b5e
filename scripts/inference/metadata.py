"""The metadata beside a checkpoint: which network it is, how its input is made and what is known about it.

`model.pt` is a state dict and `model.json` its metadata. Every entry that applies a checkpoint
builds the network and the preprocessing from the metadata, so that they cannot disagree.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.inferers import Inferer, SliceInferer, SlidingWindowInferer
from torch import nn

from ..errors import UserError
from ..files import sha256, unfinished_folder, write_json
from ..finite import check_numbers, check_weights, load_weights
from ..networks.registry import checked_spec, constructor, create_network, is_data
from ..settings import flag, memory_format, optional
from ..transforms.preprocessing import ClassPreprocessing, Preprocessing
from .tta import FlipInferer

CARD_FORMAT = 1
OPERATING_POINT = {"threshold": 0.5, "smallest_lesion_mm3": 0.0, "test_time_flips": False, "least_slice_share": 0.0}
"""Where checkpoint metadata says nothing else: the probability from which on a voxel is infection,
the smallest lesion kept, whether the network's answer is the mean over mirror images, and the share
of a slice that must be marked for it to count."""
REQUIRED = ("format", "sha256", "network", "preprocessing", "operating_point", "data")
MAY_BE_UNDEFINED = ("figures", "data")
"""What may hold NaN in checkpoint metadata: a measure without a case that defines it."""


def metadata_path(checkpoint: str | Path) -> Path:
    """Returns where the metadata of a checkpoint lies: the same name with the suffix .json."""
    return Path(checkpoint).with_suffix(".json")


def write_checkpoint(checkpoint: str | Path, weights: Mapping[str, torch.Tensor], **metadata: Any) -> None:
    """Writes weights and their metadata; both are complete before either takes its name.

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
    **further: Mapping[str, Any] | None,
) -> None:
    """Writes the metadata of a checkpoint that lies on the disk.

    Args:
        checkpoint: the weights.
        network: {"name", "arguments"}, see `create_network`.
        preprocessing: arguments of `Preprocessing`: size, window, intensity, and what differs from
            its defaults; "patch_size" (columns, rows, slices) if the network sees patches of
            volumes and not slices; "prior" (what it was in training) if it sees an infection map
            beside the image.
        data: what it was trained on: name, split, fold, synthetic and what else is known.
        figures: validation figures, each with what it was measured on.
        operating_point: "threshold", probability from which on a voxel is infection;
            "smallest_lesion_mm3", volume below which a connected lesion is left out of a scan's
            mask; "test_time_flips", see `average_over_flips`; "least_slice_share", share of a slice
            from which on it counts as one with infection.
        **further: what else is known: "training", the "size" of its slices where they are shown at
            another one since; "calibration" and "familiarity"; see `calibrate` for all of them.
    """
    metadata = {
        "format": CARD_FORMAT,
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
    """Reads the metadata of a checkpoint and checks that it belongs to these very weights, and that these can be used.

    Every entry that applies or trains on weights reads their metadata first, so that the check
    stands here alone.

    Args:
        checkpoint: path of the weights.

    Returns:
        The metadata.

    Raises:
        UserError: if the weights or the metadata are absent, unreadable, do not belong together, or
            hold numbers that make no sense, see `check_weights`.
    """
    return _read(checkpoint)[0]


def _read(checkpoint: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The metadata and the weights."""
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
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error}); expected: the metadata that training wrote") from None
    missing = [key for key in REQUIRED if not isinstance(metadata, dict) or key not in metadata]
    if missing or metadata["format"] != CARD_FORMAT:
        raise UserError(
            f"{path}: lacks {missing or 'a known format'}; expected: checkpoint metadata of format {CARD_FORMAT}"
        )
    _check_entries(metadata, path)
    found = sha256(weights)
    if found != metadata["sha256"]:
        raise UserError(
            f"{weights}: sha256 is {found[:12]}..., its metadata says {str(metadata['sha256'])[:12]}...; expected: the "
            "weights that the metadata was written for (copy both files again, or resume the run that was killed)"
        )
    check_numbers({key: value for key, value in metadata.items() if key not in MAY_BE_UNDEFINED}, path)
    metadata["operating_point"] = {**OPERATING_POINT, **metadata["operating_point"]}
    metadata["preprocessing"] = {**_defaults(metadata["preprocessing"]), **metadata["preprocessing"]}
    return metadata, load_weights(weights)


def _check_entries(metadata: Mapping[str, Any], path: Path) -> None:
    """Refuses entries that are no names and values, and those that a configuration made from them would evaluate."""
    for key in ("network", "preprocessing", "operating_point", "data"):
        if not isinstance(metadata[key], dict):
            raise UserError(f"{path}: {key} is {metadata[key]!r}; expected: names and values")
    for key in ("preprocessing", "operating_point"):
        if not is_data(metadata[key]):
            raise UserError(
                f"{path}: {key} is {metadata[key]!r}; expected: values, and no text that begins with $, @ or %"
            )


def completed_preprocessing(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the steps with every default, as JSON would hold them, to compare with those of other metadata."""
    completed: dict[str, Any] = json.loads(json.dumps({**_defaults(preprocessing), **preprocessing}))
    return completed


def _defaults(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """What metadata of an earlier version leave unsaid: the defaults that the training settled."""
    parameters = inspect.signature(ClassPreprocessing if "prior" in preprocessing else Preprocessing).parameters
    return {name: one.default for name, one in parameters.items() if name != "label_grid"}


def trained_network(checkpoint: str | Path, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """Loads a checkpoint to apply it.

    Args:
        checkpoint: the weights, with their metadata beside them.
        device: where the network goes.

    Returns:
        The network in evaluation mode, without deep supervision, in the fastest memory layout; and
        its metadata.

    Raises:
        UserError: if weights or metadata cannot be used.
    """
    metadata, weights = _read(checkpoint)
    network = network_from_metadata(metadata, deep_supervision=False)
    try:
        network.load_state_dict(weights)
    except RuntimeError:  # keys or shapes of another network
        raise UserError(
            f"{checkpoint}: no plain state dict of the metadata's network; expected: weights that training wrote"
        ) from None
    layout = memory_format(True, device, network)
    network.eval().to(device)
    network.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stubs lack it
    return network, metadata


def network_from_metadata(metadata: Mapping[str, Any], **overrides: Any) -> nn.Module:
    """Builds the network that checkpoint metadata names, without its weights.

    Args:
        metadata: see `read_metadata`.
        **overrides: arguments in place of the metadata's, as far as the network knows them: MONAI
            Label sets `dropout`, inference sets `deep_supervision`. None leaves the metadata's
            value.

    Returns:
        The network as its constructor initialises it.

    Raises:
        UserError: if the metadata names an unknown network, or arguments that it cannot be built
            with.
    """
    spec = checked_spec(metadata["network"])
    known = inspect.signature(constructor(spec["name"])).parameters
    chosen = {key: value for key, value in overrides.items() if key in known and value is not None}
    try:
        return create_network(spec["name"], **{**spec["arguments"], **chosen})
    except (TypeError, ValueError) as error:
        found = str(error).splitlines()[0]
        raise UserError(f"network {spec['name']}: {found}; expected: arguments that it can be built with") from None


def preprocessing_from_metadata(
    metadata: Mapping[str, Any], intensity: str | None = None, label_grid: str = "network"
) -> Preprocessing:
    """Builds the preprocessing that checkpoint metadata states.

    Args:
        metadata: see `read_metadata`.
        intensity: in place of the metadata's.
        label_grid: see `Preprocessing`.

    Raises:
        UserError: if the metadata states a step that this version does not know.
    """
    settings = _settings(metadata, Preprocessing, "patch_size")
    settings["intensity"] = intensity or settings["intensity"]
    return Preprocessing(**settings, label_grid=label_grid)


def class_preprocessing_from_metadata(metadata: Mapping[str, Any], label_grid: str = "network") -> ClassPreprocessing:
    """Builds the preprocessing of a network of classes.

    Args:
        metadata: see `read_metadata`; its preprocessing says what the "prior" was in training.
        label_grid: see `Preprocessing`.

    Raises:
        UserError: if the metadata's network sees no prior, or the metadata states a step that this
            version does not know.
    """
    if "prior" not in metadata["preprocessing"]:
        name = metadata["network"]["name"]
        raise UserError(
            f"the metadata's {name} sees no infection map; expected: weights trained with configs/multiclass.yaml"
        )
    return ClassPreprocessing(**_settings(metadata, ClassPreprocessing, "prior"), label_grid=label_grid)


def _settings(metadata: Mapping[str, Any], steps: type, beside: str) -> dict[str, Any]:
    """The metadata's arguments of a preprocessing, without the one that is none of its steps."""
    settings = {key: value for key, value in metadata["preprocessing"].items() if key != beside}
    known = inspect.signature(steps).parameters
    if unknown := sorted(set(settings) - set(known)):
        raise UserError(
            f"the metadata's preprocessing has {', '.join(unknown)}; expected: {', '.join(known)}, {beside}"
        )
    return settings


def inferer_from_metadata(
    metadata: Mapping[str, Any], at_once: int, test_time_flips: bool | str | None = None
) -> Inferer:
    """Returns what brings a whole scan (B, 1, size, size, Z) before the network.

    Args:
        metadata: see `read_metadata`.
        at_once: slices or patches in a batch.
        test_time_flips: in place of the operating point's.

    Returns:
        Slices one by one; or, where the metadata has a patch size, patches that overlap by half and
        are blended by a Gaussian, scans smaller than a patch padded with 0.
    """
    settings = metadata["preprocessing"]
    inferer: Inferer
    if "patch_size" in settings:
        inferer = SlidingWindowInferer(settings["patch_size"], sw_batch_size=at_once, overlap=0.5, mode="gaussian")
    else:
        inferer = SliceInferer(roi_size=[settings["size"]] * 2, sw_batch_size=at_once, spatial_dim=2)
    point = metadata.get("operating_point", OPERATING_POINT)  # while training there is none
    flips = point["test_time_flips"] if optional(test_time_flips) is None else test_time_flips
    return FlipInferer(inferer) if flag(flips, "test_time_flips") else inferer


def require_slices(metadata: Mapping[str, Any], weights: str | Path) -> None:
    """Stops where only networks that find infection in slices can be applied.

    Raises:
        UserError: if the metadata's network sees patches of volumes, or wants an infection map
            beside the slice.
    """
    if "prior" in metadata["preprocessing"]:
        raise UserError(
            f"{weights}: tells ground glass from consolidation in a given infection map; expected here: weights that "
            "find infection (`classify` applies both)"
        )
    if "patch_size" in metadata["preprocessing"]:
        name = metadata["network"]["name"]
        raise UserError(
            f"{weights}: {name} sees volumes; expected here: a network for slices (`run inference` applies both)"
        )
