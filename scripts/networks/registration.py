"""The table of networks by name, and the decorator that puts one into it."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

Constructor = TypeVar("Constructor", bound=Callable[..., nn.Module])

NETWORKS: dict[str, Callable[..., nn.Module]] = {}
"""What the modules that are imported so far have registered; all of it: `registry.all_networks`."""


def register(name: str) -> Callable[[Constructor], Constructor]:
    """Make a network known by name, to configurations and to the metadata of checkpoints.

    A module of `scripts/networks/` is found by itself; nothing else has to be changed. ValueError
    for a name that is no identifier or another network's.
    """
    if not name.isidentifier():
        raise ValueError(f"network name is {name!r}; expected: letters, digits and underscores")

    def add(network: Constructor) -> Constructor:
        known = NETWORKS.get(name)
        if known is not None and known.__qualname__ != network.__qualname__:
            raise ValueError(f"network name {name!r} is that of {known.__qualname__}; expected: another one")
        NETWORKS[name] = network
        return network

    return add
