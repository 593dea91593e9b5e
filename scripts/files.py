"""Files that are either complete or absent: written beside, flushed to the disk, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomic(path: str | os.PathLike[str], write: Callable[[Path], Any]) -> Path:
    """Calls `write` with a temporary path beside `path` and renames the result to `path`.

    A process that is killed at any moment leaves the old file or the new one, never a part of one. The
    temporary name keeps the suffixes of `path`, which many writers look at.

    Args:
        path: the file to write; its folder is made if absent.
        write: writes the content to the path that it is given.

    Returns:
        The path written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=target.parent) as folder:
        temporary = Path(folder) / target.name
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    return target


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Writes `content` as indented JSON, atomically; NaN is refused because it is not JSON."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    return write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def sha256(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
