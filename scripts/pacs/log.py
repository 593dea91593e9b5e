"""What a node says: a log in a file that does not grow without end, and a line on the screen."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

_BYTES, _FILES = 10_000_000, 5


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Write the package's messages, with their time, to a file too; it holds UIDs, no names."""
    logger = logging.getLogger(__package__.split(".")[0])
    handler = RotatingFileHandler(path, maxBytes=_BYTES, backupCount=_FILES, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


class StatusLine:
    """Show a line that replaces the one before, where standard error is a terminal."""

    def __init__(self) -> None:
        self._shown = ""

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print(file=sys.stderr)

    def show(self, line: str) -> None:
        """Show a line, unless it is shown already."""
        if sys.stderr.isatty() and line != self._shown:
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
            self._shown = line
