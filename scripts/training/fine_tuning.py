"""Fine-tuning: what a training takes over from its start checkpoint, and records of it."""

from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from ..inference.metadata import completed_preprocessing, read_metadata
from ..networks.registry import same_network

FINE_TUNING = "\"['configs/train.yaml','configs/finetune.yaml']\""


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
        "sha256" and "data" of these weights, "datasets", the names of their own and their
        ancestors', and "terms"; None without a checkpoint.
    """
    if checkpoint is None:
        return None
    metadata = read_metadata(checkpoint)
    before = [name for key in ("parent", "teacher") for name in metadata.get(key, {}).get("datasets", [])]
    datasets = list(dict.fromkeys([*before, str(metadata["data"].get("name"))]))
    return {
        "sha256": metadata["sha256"],
        "data": metadata["data"],
        "datasets": datasets,
        "terms": f"those of the data of all ancestors ({', '.join(datasets)}), see docs/data_license.txt",
    }


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
