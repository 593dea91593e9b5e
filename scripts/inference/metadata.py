"""The card beside a checkpoint: which network it is, how its input is made and what is known about it.

`model.pt` is a state dict and `model.json` its card. Every entry that applies a checkpoint builds the network and
the preprocessing from the card, so that they cannot disagree.
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
"""Where a card says nothing else: the probability from which on a voxel is infection, the smallest lesion kept, whether
the network's answer is the mean over mirror images, and the share of a slice that must be marked for it to count."""
REQUIRED = ("format", "sha256", "network", "preprocessing", "operating_point", "data")
MAY_BE_UNDEFINED = ("figures", "data")
"""What may hold NaN in a card: a measure without a case that defines it."""


def card_path(checkpoint: str | Path) -> Path:
    """Returns where the card of a checkpoint lies: the same name with the suffix .json."""
    return Path(checkpoint).with_suffix(".json")


def write_checkpoint(checkpoint: str | Path, weights: Mapping[str, torch.Tensor], **card: Any) -> None:
    """Writes weights and their card; both are complete before either takes its name.

    Args:
        checkpoint: the weights' file; the card lies beside it.
        weights: state dict.
        **card: see `write_card`.

    Raises:
        UserError: if a number of the weights makes no sense, see `check_weights`.
    """
    target = Path(checkpoint)
    check_weights(weights, target)
    with unfinished_folder(target.parent) as folder:
        temporary = folder / target.name
        torch.save(dict(weights), temporary)
        write_card(temporary, **card)
        temporary.replace(target)
        card_path(temporary).replace(card_path(target))


def write_card(
    checkpoint: str | Path,
    network: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    data: Mapping[str, Any],
    figures: Mapping[str, Any],
    operating_point: Mapping[str, Any] = OPERATING_POINT,
    **further: Mapping[str, Any] | None,
) -> None:
    """Writes the card of a checkpoint that lies on the disk.

    Args:
        checkpoint: the weights.
        network: {"name", "arguments"}, see `create_network`.
        preprocessing: arguments of `Preprocessing`: size, window, intensity, and what differs from its defaults;
            "patch_size" (columns, rows, slices) if the network sees patches of volumes and not slices; "prior" (what
            it was in training) if it sees an infection map beside the image.
        data: what it was trained on: name, split, fold, synthetic and what else is known.
        figures: validation figures, each with what it was measured on.
        operating_point: "threshold", probability from which on a voxel is infection; "smallest_lesion_mm3", volume
            below which a connected lesion is left out of a scan's mask; "test_time_flips", see `average_over_flips`;
            "least_slice_share", share of a slice from which on it counts as one with infection.
        **further: what else is known: "training", the "size" of its slices where they are shown at another one since;
            "calibration" and "familiarity"; see `calibrate` for all of them.
    """
    card = {
        "format": CARD_FORMAT,
        "sha256": sha256(checkpoint),
        "network": dict(network),
        "preprocessing": dict(preprocessing),
        "operating_point": {**OPERATING_POINT, **operating_point},
        "data": dict(data),
        "figures": dict(figures),
        **{key: value for key, value in further.items() if value is not None},
    }
    write_json(card_path(checkpoint), card)


def read_card(checkpoint: str | Path) -> dict[str, Any]:
    """Reads the card of a checkpoint and checks that it belongs to these very weights, and that these can be used.

    Every entry that applies or trains on weights reads their card first, so that the check stands here alone.

    Args:
        checkpoint: path of the weights.

    Returns:
        The card.

    Raises:
        UserError: if the weights or the card are absent, unreadable, do not belong together, or hold numbers that make
            no sense, see `check_weights`.
    """
    return _read(checkpoint)[0]


def _read(checkpoint: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The card and the weights."""
    weights, path = Path(checkpoint), card_path(checkpoint)
    if not weights.is_file():
        raise UserError(
            f"{weights}: no such weights; accepted: a trained checkpoint named by --checkpoint (--weights) "
            "(`make demo` trains one on synthetic scans, `run training` on yours)"
        )
    if not path.is_file():
        raise UserError(f"{weights}: its card {path.name} is missing; accepted: weights with the card beside them")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error}); accepted: the card that training wrote") from None
    missing = [key for key in REQUIRED if not isinstance(card, dict) or key not in card]
    if missing or card["format"] != CARD_FORMAT:
        raise UserError(f"{path}: lacks {missing or 'a known format'}; accepted: a card of format {CARD_FORMAT}")
    _check_entries(card, path)
    found = sha256(weights)
    if found != card["sha256"]:
        raise UserError(
            f"{weights}: sha256 is {found[:12]}..., its card says {str(card['sha256'])[:12]}...; accepted: the "
            "weights that the card was written for (copy both files again, or resume the run that was killed)"
        )
    check_numbers({key: value for key, value in card.items() if key not in MAY_BE_UNDEFINED}, path)
    card["operating_point"] = {**OPERATING_POINT, **card["operating_point"]}
    card["preprocessing"] = {**_defaults(card["preprocessing"]), **card["preprocessing"]}
    return card, load_weights(weights)


def _check_entries(card: Mapping[str, Any], path: Path) -> None:
    """Refuses entries that are no names and values, and those that a configuration made from them would evaluate."""
    for key in ("network", "preprocessing", "operating_point", "data"):
        if not isinstance(card[key], dict):
            raise UserError(f"{path}: {key} is {card[key]!r}; expected: names and values")
    for key in ("preprocessing", "operating_point"):
        if not is_data(card[key]):
            raise UserError(f"{path}: {key} is {card[key]!r}; expected: values, and no text that begins with $, @ or %")


def completed_preprocessing(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the steps with every default, as JSON would hold them, to compare with those of other metadata."""
    completed: dict[str, Any] = json.loads(json.dumps({**_defaults(preprocessing), **preprocessing}))
    return completed


def _defaults(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """What a card of an earlier version leaves unsaid: the defaults of the steps that are settled by the training."""
    parameters = inspect.signature(ClassPreprocessing if "prior" in preprocessing else Preprocessing).parameters
    return {name: one.default for name, one in parameters.items() if name != "label_grid"}


def trained_network(checkpoint: str | Path, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """Loads a checkpoint to apply it.

    Args:
        checkpoint: the weights, with their card beside them.
        device: where the network goes.

    Returns:
        The network in evaluation mode, without deep supervision, in the fastest memory layout; and its card.

    Raises:
        UserError: if weights or card cannot be used.
    """
    card, weights = _read(checkpoint)
    network = network_from_card(card, deep_supervision=False)
    try:
        network.load_state_dict(weights)
    except RuntimeError:  # keys or shapes of another network
        raise UserError(
            f"{checkpoint}: no plain state dict of the card's network; accepted: weights that training wrote"
        ) from None
    layout = memory_format(True, device, network)
    network.eval().to(device)
    network.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stubs lack it
    return network, card


def network_from_card(card: Mapping[str, Any], **overrides: Any) -> nn.Module:
    """Builds the network that a card names, without its weights.

    Args:
        card: see `read_card`.
        **overrides: arguments in place of the card's, as far as the network knows them: MONAI Label sets
            `dropout`, inference sets `deep_supervision`. None leaves the card's value.

    Returns:
        The network as its constructor initialises it.

    Raises:
        UserError: if the card names an unknown network, or arguments that it cannot be built with.
    """
    spec = checked_spec(card["network"])
    known = inspect.signature(constructor(spec["name"])).parameters
    chosen = {key: value for key, value in overrides.items() if key in known and value is not None}
    try:
        return create_network(spec["name"], **{**spec["arguments"], **chosen})
    except (TypeError, ValueError) as error:
        found = str(error).splitlines()[0]
        raise UserError(f"network {spec['name']}: {found}; expected: arguments that it can be built with") from None


def preprocessing_from_card(
    card: Mapping[str, Any], intensity: str | None = None, label_grid: str = "network"
) -> Preprocessing:
    """Builds the preprocessing that a card states.

    Args:
        card: see `read_card`.
        intensity: in place of the card's.
        label_grid: see `Preprocessing`.

    Raises:
        UserError: if the card states a step that this version does not know.
    """
    settings = _settings(card, Preprocessing, "patch_size")
    settings["intensity"] = intensity or settings["intensity"]
    return Preprocessing(**settings, label_grid=label_grid)


def class_preprocessing_from_card(card: Mapping[str, Any], label_grid: str = "network") -> ClassPreprocessing:
    """Builds the preprocessing of a network of classes.

    Args:
        card: see `read_card`; its preprocessing says what the "prior" was in training.
        label_grid: see `Preprocessing`.

    Raises:
        UserError: if the card's network sees no prior, or the card states a step that this version does not know.
    """
    if "prior" not in card["preprocessing"]:
        name = card["network"]["name"]
        raise UserError(
            f"the card's {name} sees no infection map; accepted: weights trained with configs/multiclass.yaml"
        )
    return ClassPreprocessing(**_settings(card, ClassPreprocessing, "prior"), label_grid=label_grid)


def _settings(card: Mapping[str, Any], steps: type, beside: str) -> dict[str, Any]:
    """The card's arguments of a preprocessing, without the one that is none of its steps."""
    settings = {key: value for key, value in card["preprocessing"].items() if key != beside}
    known = inspect.signature(steps).parameters
    if unknown := sorted(set(settings) - set(known)):
        raise UserError(f"the card's preprocessing has {', '.join(unknown)}; accepted: {', '.join(known)}, {beside}")
    return settings


def inferer_from_card(card: Mapping[str, Any], at_once: int, test_time_flips: bool | str | None = None) -> Inferer:
    """Returns what brings a whole scan (B, 1, size, size, Z) before the network.

    Args:
        card: see `read_card`.
        at_once: slices or patches in a batch.
        test_time_flips: in place of the operating point's.

    Returns:
        Slices one by one; or, where the card has a patch size, patches that overlap by half and are blended by a
        Gaussian, scans smaller than a patch padded with 0.
    """
    settings = card["preprocessing"]
    inferer: Inferer
    if "patch_size" in settings:
        inferer = SlidingWindowInferer(settings["patch_size"], sw_batch_size=at_once, overlap=0.5, mode="gaussian")
    else:
        inferer = SliceInferer(roi_size=[settings["size"]] * 2, sw_batch_size=at_once, spatial_dim=2)
    point = card.get("operating_point", OPERATING_POINT)  # while training there is none
    flips = point["test_time_flips"] if optional(test_time_flips) is None else test_time_flips
    return FlipInferer(inferer) if flag(flips, "test_time_flips") else inferer


def require_slices(card: Mapping[str, Any], weights: str | Path) -> None:
    """Stops where only networks that find infection in slices can be applied.

    Raises:
        UserError: if the card's network sees patches of volumes, or wants an infection map beside the slice.
    """
    if "prior" in card["preprocessing"]:
        raise UserError(
            f"{weights}: tells ground glass from consolidation in a given infection map; accepted here: weights that "
            "find infection (`classify` applies both)"
        )
    if "patch_size" in card["preprocessing"]:
        name = card["network"]["name"]
        raise UserError(
            f"{weights}: {name} sees volumes; accepted here: a network for slices (`run inference` applies both)"
        )
