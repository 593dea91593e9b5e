"""Record a training's network in the metadata of its weights."""

from collections.abc import Mapping
from typing import Any

from monai.bundle import ConfigParser
from torch import nn

from ..errors import UserError
from ..networks.registry import checked_spec, name_of
from .callers import calling

NETWORK = "network_def"


def network_spec(network: nn.Module, channels: int = 1) -> dict[str, Any]:
    """Return name and arguments of the network that `network_def` defines, for the metadata.

    `create_network` keeps both with the network. Of a class that the configuration names itself by
    `_target_`, MONAI keeps neither: its definition is read from the parser that is just building
    this very object.

    Args:
        network: the network built.
        channels: how many channels the preprocessing gives it.

    Raises:
        UserError: for a class that is neither registered nor of `monai.networks.nets`, for
            arguments that cannot be recorded, and for `in_channels` that are not those.
    """
    spec = getattr(network, "spec", None)
    found = dict(spec) if isinstance(spec, Mapping) else _spec_of_definition(network)
    given = found["arguments"].get("in_channels", channels)
    if given != channels:
        raise UserError(f"{NETWORK}#in_channels is {given!r}; expected: {channels}, as the preprocessing gives them")
    return found


def _spec_of_definition(network: nn.Module) -> dict[str, Any]:
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
