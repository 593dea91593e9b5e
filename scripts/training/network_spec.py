"""Record a training's network in the metadata of its weights."""

from collections.abc import Mapping
from typing import Any

from monai.bundle import ConfigParser
from torch import nn

from ..errors import UserError
from ..networks.registry import checked_spec, name_of
from .callers import calling

NETWORK = "network_def"


def network_spec(network: nn.Module) -> dict[str, Any]:
    """Return name and arguments of the network that `network_def` defines, for the metadata.

    `create_network` keeps both with the network. Of a class that the configuration names itself by
    `_target_`, MONAI keeps neither: its definition is read from the parser that is just building
    this very object.

    Args:
        network: the network built.

    Raises:
        UserError: for a class that is neither registered nor of `monai.networks.nets`, and for
            arguments that cannot be recorded.
    """
    spec = getattr(network, "spec", None)
    if isinstance(spec, Mapping):
        return dict(spec)
    parser = calling(ConfigParser, lambda one: isinstance(one.get(NETWORK), dict))
    if parser is None:
        raise ValueError(f"no configuration with {NETWORK} is being resolved")
    definition = parser.get(NETWORK)
    keys = [key for key in definition if not key.startswith("_")]
    arguments = {key: parser.get_parsed_content(f"{NETWORK}#{key}") for key in keys}
    for key, value in arguments.items():
        if isinstance(value, str) and value in ("true", "false"):
            raise UserError(f"{NETWORK}#{key} is the text {value!r}; expected: True or False, with a capital letter")
    return checked_spec({"name": name_of(type(network)), "arguments": arguments})
