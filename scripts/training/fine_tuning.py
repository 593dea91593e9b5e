"""Fine-tuning: what a training takes over from its start checkpoint, and records of it."""

import logging
import os
from collections.abc import Mapping
from typing import Any

from ..data.datalist import SAME_FOLD, SAME_LIST, Fold, Split, describe
from ..errors import UserError
from ..inference.metadata import completed_preprocessing, read_metadata
from ..networks.registry import same_network

logger = logging.getLogger(__name__)

FINE_TUNING = "\"['configs/train.yaml','configs/finetune.yaml']\""
ANCESTORS = ("parent", "teacher")


def read_parent(checkpoint: str | None) -> dict[str, Any]:
    """Read the metadata of the checkpoint to fine-tune.

    Raises:
        UserError: if none is named, or they cannot be used.
    """
    if checkpoint is None:
        raise UserError("checkpoint is null; expected: the weights to fine-tune, such as --checkpoint models/model.pt")
    return read_metadata(checkpoint)


def describe_parent(checkpoint: str | None) -> dict[str, Any] | None:
    """Return what the metadata of a network record of its parent, or of its teacher.

    Returns:
        "sha256" and "data" of these weights, "ancestors", the data of those before them if there
        are any, "datasets", the names of all, and "terms"; None without a checkpoint.
    """
    if checkpoint is None:
        return None
    metadata = read_metadata(checkpoint)
    before = [name for key in ANCESTORS for name in metadata.get(key, {}).get("datasets", [])]
    datasets = list(dict.fromkeys([*before, str(metadata["data"].get("name"))]))
    return {
        "sha256": metadata["sha256"],
        "data": metadata["data"],
        **({"ancestors": ancestors} if (ancestors := data_of_all(metadata)[1:]) else {}),
        "datasets": datasets,
        "terms": f"those of the data of all ancestors ({', '.join(datasets)}), see docs/data_license.txt",
    }


def data_of_all(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the data of weights, then those of their parents, teachers and all before, each once.

    Versions up to 0.25 recorded no more than the data of parent and teacher.
    """
    found = [metadata["data"]]
    for one in (metadata[key] for key in ANCESTORS if metadata.get(key)):
        found += [one["data"], *one.get("ancestors", [])]
    return [dict(one) for index, one in enumerate(found) if one not in found[:index]]


def shares_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two of what `describe` says are of data whose names share a part."""
    parts = [set(str(said.get("name", "")).split("+")) for said in (one, other)]
    return not parts[0].isdisjoint(parts[1])


def left_out_otherwise(metadata: Mapping[str, Any], own: Mapping[str, Any]) -> str | None:
    """Say how weights, or those before them, were trained with validation cases of a training.

    Data whose name shares no part with that of the training are taken for other cases.

    Args:
        metadata: of the weights.
        own: what `describe` says of the data of the training.

    Returns:
        The fold that was left out in place of that of the training; None if they saw no such case.
    """
    for taught in data_of_all(metadata):
        if not own["validation_cases"] or not shares_data(taught, own):
            continue
        alike = all(taught.get(key) == own[key] for key in SAME_LIST)
        if not alike or any(taught.get(key) != own[key] for key in SAME_FOLD):
            return f"fold {taught.get('fold')}{'' if alike else ' of another list'}"
    return None


def describe_data(dataset_dir: str | os.PathLike[str], fold: Fold, checkpoint: str | None) -> dict[str, Any]:
    """Return `describe` of a training, with a warning if its start weights saw validation cases."""
    own = describe(dataset_dir, fold)
    if checkpoint is not None:
        _warn_of_known(own, read_metadata(checkpoint), ", which the training started from,")
    return own


def describe_judged(
    dataset_dir: str | os.PathLike[str], fold: Fold, split: Split, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Return `describe` of an evaluation, with a warning if the weights saw validation cases."""
    own = describe(dataset_dir, fold, split)
    if split == "validation":
        _warn_of_known(own, metadata)
    return own


def _warn_of_known(own: dict[str, Any], metadata: Mapping[str, Any], which: str = "") -> None:
    if found := left_out_otherwise(metadata, own):
        weights = f"the weights {metadata['sha256'][:12]}{which} were trained with {found} left out"
        warning = f"{weights}: they may know validation cases of fold {own['fold']}"
        logger.warning(warning)
        own["warnings"] = [*own["warnings"], warning]


def check_same_as_parent(
    checkpoint: str,
    network: Mapping[str, Any] | None,
    preprocessing: Mapping[str, Any] | None,
    allow_differences: bool = False,
) -> None:
    """Refuse a training whose input or network differs from those of the start checkpoint.

    A network or preprocessing that is None is not compared.

    Raises:
        UserError: if the two differ and that is not allowed.
    """
    metadata = read_metadata(checkpoint)
    found: dict[str, tuple[Any, Any]] = {}
    if network is not None and not same_network(metadata["network"], network):
        found["network"] = dict(metadata["network"]), dict(network)
    if preprocessing is not None:
        theirs, ours = (completed_preprocessing(one) for one in (metadata["preprocessing"], preprocessing))
        found |= {key: (theirs.get(key), ours.get(key)) for key in theirs | ours if theirs.get(key) != ours.get(key)}
    if found and not allow_differences:
        said = "; ".join(f"{key} {parent!r}, here {here!r}" for key, (parent, here) in found.items())
        raise UserError(
            f"{checkpoint}: was trained with {said}; expected: the same (--config_file {FINE_TUNING} takes them over), "
            "or --allow_differences true"
        )
