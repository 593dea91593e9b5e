"""Find the MONAI object that is calling: MONAI passes it to no object that a config names."""

import inspect
from collections.abc import Callable
from typing import TypeVar

Owner = TypeVar("Owner")


def calling(kind: type[Owner], fits: Callable[[Owner], bool] = lambda _: True) -> Owner | None:
    """Return the nearest object of a class, which fits, whose method is running; else None."""
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, kind) and fits(owner):
            return owner
        frame = frame.f_back
    return None
