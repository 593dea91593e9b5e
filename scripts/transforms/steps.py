"""Chains of transforms as data, to compare two of them and to name what they left on disk."""

from collections.abc import Iterable, Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose


def flattened(chains: Iterable[Any]) -> list[Any]:
    """Return the single steps of some chains that follow each other."""
    return list(Compose(list(chains)).flatten().transforms)


def settings(value: Any, name: str = "a step of the preprocessing") -> Any:
    """Return class and attributes of a step, and of all that it holds, as JSON could hold them.

    The state of random numbers is left out, and so is what a step notes while it runs. TypeError,
    which calls the step `name`, for what no attributes could state, such as a generator.
    """
    if value is None or isinstance(value, bool | int | float | str | Path | torch.dtype | np.dtype):
        return value if isinstance(value, bool | int | float | None) else str(value)
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, Mapping):
        return {str(key): settings(one, name) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [settings(one, name) for one in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.tolist() if isinstance(value, np.ndarray) else value.cpu().tolist()
    if isinstance(value, partial):
        return [settings(one, name) for one in (value.func, value.args, value.keywords)]
    if hasattr(value, "__qualname__"):  # a class or a function
        return f"{value.__module__}.{value.__qualname__}"
    if not hasattr(value, "__dict__"):
        raise TypeError(f"{name} is a {type(value).__name__}, which has no attributes")
    kept = {name: one for name, one in vars(value).items() if not isinstance(one, np.random.RandomState | local)}
    kind = type(value)
    return {"class": settings(kind), **{key: settings(one, f"{kind.__name__}.{key}") for key, one in kept.items()}}
