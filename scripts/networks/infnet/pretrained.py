"""Networks whose backbone starts from ImageNet weights."""

from typing import Any

from torch import nn

from ...errors import UserError
from ..registry import create_network
from .res2net import Res2Net, load_imagenet_weights


def create_pretrained(name: str, imagenet_weights: str | None = None, **arguments: Any) -> nn.Module:
    """Build a network as `create_network` does and load ImageNet weights into its backbone.

    The file, `imagenet_weights` (see `load_imagenet_weights`), is no argument of the network:
    `spec` and checkpoint metadata do not hold it. UserError if the network has no such backbone.
    """
    network = create_network(name, **arguments)
    if imagenet_weights is not None:
        backbone = getattr(network, "backbone", None)
        if not isinstance(backbone, Res2Net):
            raise UserError(
                f"imagenet_weights is {imagenet_weights} for the network {name}; expected: a network with a Res2Net"
            )
        load_imagenet_weights(backbone, imagenet_weights)
    return network
