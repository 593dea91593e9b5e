"""What the bundle says while it works, under the commands for people."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def shown_messages() -> Iterator[None]:
    """Show the bundle's own messages, not other packages', on standard error."""
    logger, handler = logging.getLogger(__package__), logging.StreamHandler()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
