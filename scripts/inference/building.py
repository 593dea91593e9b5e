"""Build network and preprocessing as checkpoint metadata state them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import UserError
from ..networks.registry import checked_spec, constructor, create_network
from ..settings import memory_format
from .metadata import BESIDE_STEPS, TARGETS, read_checkpoint, read_metadata
from .metadata_schema import INFECTION_AND_LUNGS

if TYPE_CHECKING:
    from ..transforms.preprocessing import Preprocessing


def trained_network(checkpoint: str | Path, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """Load a checkpoint to apply it.

    Args:
        checkpoint: the weights, with their metadata beside them.
        device: where the network goes.

    Returns:
        The network in evaluation mode, without deep supervision, in the fastest memory layout; and
        its metadata.

    Raises:
        UserError: if weights or metadata cannot be used.
    """
    metadata, weights = read_checkpoint(checkpoint)
    try:
        _check_fit(metadata, weights)
        with _NothingDrawn():  # the caller's random numbers stay, and each value is replaced
            network = network_from_metadata(metadata, deep_supervision=False)
        network.float()  # also where the caller's default is another type
        network.load_state_dict(weights)
    except RuntimeError:  # keys or shapes of another network
        raise UserError(
            f"{checkpoint}: no plain state dict of the metadata's network; expected: weights that training wrote"
        ) from None
    layout = memory_format(True, device, network)
    network.eval().to(device)
    network.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stubs lack it
    return network, metadata


def _check_fit(metadata: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> None:
    """Raise RuntimeError for weights of another network, before memory is taken for it."""
    try:
        with torch.device("meta"), _NothingDrawn():
            shell = network_from_metadata(metadata, deep_supervision=False)
    except RuntimeError:  # some classes of MONAI compute while they are built
        return
    shell.load_state_dict(weights, assign=True)


class _NothingDrawn(TorchFunctionMode):
    """Leave out the initial values of layers that get others.

    On the meta device torch would import its compiler, for seconds, to draw none.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        initialises = getattr(func, "__module__", None) == nn.init.__name__  # handed over whole, by names
        return given["tensor"] if initialises else func(*args, **given)


def network_from_metadata(metadata: Mapping[str, Any], **overrides: Any) -> nn.Module:
    """Build the network that checkpoint metadata names, without its weights.

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
    """Build the preprocessing that checkpoint metadata states.

    Args:
        metadata: see `read_metadata`.
        intensity: in place of the metadata's.
        label_grid: see `Preprocessing`.

    Raises:
        UserError: see `require_infection`.
    """
    from ..transforms.preprocessing import Preprocessing  # importing MONAI takes seconds

    require_infection(metadata, metadata["network"]["name"])
    settings = {key: value for key, value in metadata["preprocessing"].items() if key not in BESIDE_STEPS}
    settings["intensity"] = intensity or settings["intensity"]
    return Preprocessing(**settings, label_grid=label_grid)


def read_infection_metadata(checkpoint: str | Path) -> dict[str, Any]:
    """Read the metadata of a network that finds infection; see `read_metadata`.

    Raises:
        UserError: as `read_metadata` and `require_infection` do.
    """
    metadata = read_metadata(checkpoint)
    require_infection(metadata, checkpoint)
    return metadata


def read_class_metadata(checkpoint: str | Path) -> dict[str, Any]:
    """Read the metadata of a multi-class network; see `read_metadata`.

    Raises:
        UserError: as `read_metadata` does, and if the network sees no infection map.
    """
    metadata = read_metadata(checkpoint)
    require_prior(metadata, checkpoint)
    return metadata


def read_lung_metadata(checkpoint: str | Path) -> dict[str, Any]:
    """Read the metadata of a network that finds lungs beside infection; see `read_metadata`.

    Raises:
        UserError: as `read_metadata` does, and if the network does not find lungs.
    """
    metadata = read_metadata(checkpoint)
    require_lungs(metadata, checkpoint)
    return metadata


def require_lungs(metadata: Mapping[str, Any], weights: str | Path) -> None:
    """Stop where only a network that finds lungs can be applied; UserError for another one."""
    if metadata.get(TARGETS) != INFECTION_AND_LUNGS:
        name = metadata["network"]["name"]
        raise UserError(f"{weights}: the metadata's {name} finds no lungs; expected: weights of configs/lungs.yaml")


def require_prior(metadata: Mapping[str, Any], weights: str | Path) -> None:
    """Stop where only a multi-class network can be applied.

    Raises:
        UserError: if the metadata's network sees no infection map.
    """
    if "prior" not in metadata["preprocessing"]:
        name = metadata["network"]["name"]
        raise UserError(
            f"{weights}: the metadata's {name} sees no infection map; expected: weights trained with "
            "configs/multiclass.yaml"
        )


def require_infection(metadata: Mapping[str, Any], weights: str | Path) -> None:
    """Refuse networks that do not find infection.

    Raises:
        UserError: if the metadata's network wants an infection map beside the slice.
    """
    if "prior" in metadata["preprocessing"]:
        raise UserError(
            f"{weights}: tells ground glass from consolidation in a given infection map; expected here: weights that "
            "find infection (`classify` applies both)"
        )


def require_slices(metadata: Mapping[str, Any], weights: str | Path) -> None:
    """Refuse networks that do not find infection in slices.

    Raises:
        UserError: as `require_infection` does, and if the metadata's network sees patches of
            volumes.
    """
    require_infection(metadata, weights)
    if "patch_size" in metadata["preprocessing"]:
        name = metadata["network"]["name"]
        raise UserError(
            f"{weights}: {name} sees volumes; expected here: a network for slices (`run inference` applies both)"
        )
