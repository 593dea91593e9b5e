"""Networks by name: what the metadata of a checkpoint may ask for.

Metadata are data. They name a network that a module of this package registers (a new one by
`registration.register`), or a class of `monai.networks.nets`, and its arguments, so that nothing
that comes with downloaded weights is imported or evaluated.
"""

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..errors import UserError
from . import __name__ as _PACKAGE
from . import __path__ as _FOLDERS
from .registration import NETWORKS

MONAI = "monai.networks.nets."
FETCHES = re.compile(r"pretrained|url|file|weights|repo|cache_dir")
"""Names of arguments by which classes of MONAI read files or download: metadata may not set
them."""


def create_network(name: str, **arguments: Any) -> nn.Module:
    """Build a network and keep its name and arguments as `spec`, for checkpoint metadata.

    The name is one of `NETWORKS`, or "monai.networks.nets." and a class; errors as `checked_spec`.
    """
    arguments = {key: _from_text(value) for key, value in arguments.items()}
    spec = checked_spec({"name": name, "arguments": arguments})
    network = constructor(name)(**arguments)
    network.spec = spec  # type: ignore[assignment]
    return network


def constructor(name: str) -> Callable[..., nn.Module]:
    """Return what builds a network; UserError for a name not registered and no class of MONAI."""
    if str(name).startswith(MONAI):
        found = _class_of_monai(name.removeprefix(MONAI))
        if isinstance(found, type) and issubclass(found, nn.Module):
            return found
    elif _is_registered(name):
        return NETWORKS[name]
    raise UserError(
        f"network is {name!r}; expected: {', '.join(sorted(all_networks()))}, or a class of monai.networks.nets"
    )


def all_networks() -> dict[str, Callable[..., nn.Module]]:
    """Return every registered network by its name."""
    _is_registered("")
    return NETWORKS


def _is_registered(name: str) -> bool:
    """Import modules until one registers the name; the module of that name comes first."""
    modules = [module.name for module in pkgutil.walk_packages(_FOLDERS, f"{_PACKAGE}.")]
    for module in sorted(modules, key=lambda module: module.rpartition(".")[2] != name):
        if name in NETWORKS:
            return True
        importlib.import_module(module)
    return name in NETWORKS


def _class_of_monai(label: str) -> Any:
    import monai.networks.nets  # takes seconds, which other networks do without

    return getattr(monai.networks.nets, label, None)


def name_of(network: Callable[..., nn.Module]) -> str:
    """Return the name by which `constructor` finds a class; UserError if it finds none."""
    for name, known in all_networks().items():
        if known is network:
            return name
    label = getattr(network, "__name__", "")
    if label and _class_of_monai(label) is network:
        return MONAI + label
    raise UserError(
        f"network_def is {getattr(network, '__module__', '')}.{label or network}; expected: a network with @register "
        "(docs/training.md) or a class of monai.networks.nets, which the weights can name"
    )


def checked_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec {"name", "arguments"} that is safe to build and to write into a config.

    Raises:
        UserError: for an unknown network, unknown or missing arguments, values that JSON cannot
            hold, texts that a config would evaluate, and arguments that read files or download.
    """
    name, arguments = spec.get("name", ""), spec.get("arguments", {})
    try:
        bound = inspect.signature(constructor(name)).bind(**arguments)
    except TypeError as error:
        raise UserError(f"network {name}: {error}; expected: arguments of its constructor") from None
    bound.apply_defaults()  # some classes of MONAI download unless told otherwise
    for key, value in (bound.arguments | arguments).items():
        if name.startswith(MONAI) and FETCHES.search(key) and value:
            raise UserError(f"network {name}: {key} is {value!r}; expected: nothing that is read or downloaded")
        if key in arguments and not is_data(value):
            raise UserError(f"network {name}: {key} is {value!r}; expected: what JSON holds, and texts that are data")
    return {"name": name, "arguments": dict(arguments)}


def is_data(value: Any) -> bool:
    """Return whether JSON holds a value and no config evaluates it ("$...", "@...", "%...")."""
    if isinstance(value, str):
        return not value.lstrip().startswith(("$", "@", "%"))
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and not key.startswith("_") and is_data(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return all(is_data(one) for one in value)
    return value is None or isinstance(value, bool | int | float)


def same_network(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two specs build the same network; an argument that one leaves unsaid has its default.

    Metadata of earlier versions lack the arguments that came later.
    """
    return _completed(one) == _completed(other)


def _completed(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec with every default, as JSON would hold it: a tuple is a list there."""
    try:
        parameters = inspect.signature(constructor(spec.get("name", ""))).parameters.values()
    except UserError:
        return dict(spec)
    defaults = {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}
    full = {**spec, "arguments": {**defaults, **spec.get("arguments", {})}}
    completed: dict[str, Any] = json.loads(json.dumps(full, default=repr))  # a default may be a class
    return completed


def _from_text(value: Any) -> Any:
    """Refuse a switch that arrives as text: Python takes "false" for true."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value
