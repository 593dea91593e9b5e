"""Networks by name: what a checkpoint's card may ask for.

A card is data. It names a network of this table and its arguments, so that nothing that comes with downloaded
weights is imported or evaluated.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from scripts.networks.cares_unet import CAResUNet
from scripts.networks.ce_net import CENet
from scripts.networks.cpfnet import CPFNet
from scripts.networks.danet import DANet
from scripts.networks.deeplabv3plus import DeepLabV3Plus
from scripts.networks.f3net import F3Net
from scripts.networks.fv_paspp_unet3d import FvPasppUNet3d
from scripts.networks.infnet import InfNet
from scripts.networks.mc_unet import MultiClassUNet
from scripts.networks.monai_nets import AttentionUNet, UNet, UNetPlusPlus
from scripts.networks.pspnet import PSPNet
from scripts.networks.resunet import ResUNet
from scripts.networks.scrn import SCRN

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "attention_unet": AttentionUNet,
    "cares_unet": CAResUNet,
    "ce_net": CENet,
    "cpfnet": CPFNet,
    "danet": DANet,
    "deeplabv3plus": DeepLabV3Plus,
    "f3net": F3Net,
    "fv_paspp_unet3d": FvPasppUNet3d,
    "infnet": InfNet,
    "mc_unet": MultiClassUNet,
    "pspnet": PSPNet,
    "resunet": ResUNet,
    "scrn": SCRN,
    "unet": UNet,
    "unetpp": UNetPlusPlus,
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


def same_network(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two specs build the same network; an argument that one leaves unsaid has its default.

    Cards of earlier versions lack the arguments that came later.
    """
    return _completed(one) == _completed(other)


def _completed(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec with every default, as JSON would hold it: a tuple is a list there."""
    if spec.get("name") not in NETWORKS:
        return dict(spec)
    parameters = inspect.signature(NETWORKS[spec["name"]]).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
    completed: dict[str, Any] = json.loads(json.dumps({**spec, "arguments": {**defaults, **spec["arguments"]}}))
    return completed


def _from_text(value: Any) -> Any:
    """A switch given on the command line arrives as the text "false", which Python takes for true."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
