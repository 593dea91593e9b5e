"""The object of MONAI that is calling right now: MONAI gives what a config names no other way to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

Owner = TypeVar("Owner")


def calling(kind: type[Owner], fits: Callable[[Owner], bool] = lambda _: True) -> Owner | None:
    """Returns the nearest object up the call stack whose method is running, or None.

    Args:
        kind: class of the object.
        fits: whether it is the one looked for.
    """
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, kind) and fits(owner):
            return owner
        frame = frame.f_back
    return None
