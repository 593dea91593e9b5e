"""What the bundle says while it works, under the commands for people."""

from __future__ import annotations

import logging


def show_messages() -> None:
    """Lets the bundle's own messages, not other packages', appear on standard error."""
    logger = logging.getLogger(__name__.split(".")[0])
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler())
