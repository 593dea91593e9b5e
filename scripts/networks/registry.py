"""Networks by name: what a checkpoint's card may ask for.

A card is data. It names a network of this table and its arguments, so that nothing that comes with downloaded
weights is imported or evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.networks.nets import BasicUNet
from torch import nn

from scripts.networks.cares_unet import CAResUNet
from scripts.networks.fv_paspp_unet3d import FvPasppUNet3d
from scripts.networks.infnet import InfNet
from scripts.networks.mc_unet import MultiClassUNet
from scripts.networks.resunet import ResUNet


def unet(in_channels: int = 1, out_channels: int = 1, base_width: int = 64, dropout: float = 0.0) -> nn.Module:
    """U-Net (Ronneberger et al. 2015) by MONAI: five levels of 1, 2, 4, 8, 16 times the base width."""
    features = [base_width * factor for factor in (1, 2, 4, 8, 16, 1)]
    return BasicUNet(
        spatial_dims=2, in_channels=in_channels, out_channels=out_channels, features=features, dropout=dropout
    )


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "fv_paspp_unet3d": FvPasppUNet3d,
    "infnet": InfNet,
    "mc_unet": MultiClassUNet,
    "cares_unet": CAResUNet,
    "resunet": ResUNet,
    "unet": unet,
}


def create_network(name: str, **arguments: Any) -> nn.Module:
    """Builds a network and keeps its name and arguments with it, as `spec`, for the card of its checkpoints.

    Args:
        name: a key of `NETWORKS`.
        **arguments: arguments of the network's constructor.

    Returns:
        The network, with `spec` {"name": ..., "arguments": {...}}.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in NETWORKS:
        raise ValueError(f"network is {name!r}; accepted: {', '.join(sorted(NETWORKS))}")
    arguments = {key: _from_text(value) for key, value in arguments.items()}
    network = NETWORKS[name](**arguments)
    network.spec = {"name": name, "arguments": arguments}  # type: ignore[assignment]
    return network


def _from_text(value: Any) -> Any:
    """A switch given on the command line arrives as the text "false", which Python takes for true."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
