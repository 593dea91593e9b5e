"""Compiled models in the user's cache folder; whatever goes wrong there is no reason to stop."""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress

from ...files import user_cache, write_atomic

logger = logging.getLogger(__name__)

NAME = "compiled"
KEPT = 20
"""Models that stay when another one is written: those used last."""
DIGEST = hashlib.sha256().digest_size


def read(key: str) -> bytes | None:
    """Return what was written under a key; None if it is absent or damaged."""
    folder = user_cache(NAME)
    if folder is None:
        return None
    path = folder / key
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[DIGEST:]).digest() != content[:DIGEST]:
        logger.info(f"{path}: damaged, it is made anew")
        return None
    with suppress(OSError):
        path.touch()
    return content[DIGEST:]


def write(key: str, content: bytes) -> None:
    """Keep a compiled model, complete or not at all."""
    folder = user_cache(NAME)
    if folder is None:
        return
    try:
        write_atomic(folder / key, lambda path: path.write_bytes(hashlib.sha256(content).digest() + content))
        files = [path for path in folder.iterdir() if path.is_file()]  # no folder of one that is just written
        for old in sorted(files, key=lambda path: path.stat().st_mtime)[:-KEPT]:
            old.unlink()
    except OSError as error:  # also where another process was first to remove one
        logger.info(f"{folder}: the compiled model is not kept ({error})")
