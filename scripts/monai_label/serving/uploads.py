"""Files that came with a request, and names that may not lead out of a folder."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi import HTTPException


def is_upload(path: str) -> bool:
    """Return whether a file came with the request; no other file may be asked for."""
    file = Path(path)
    named = file.name.startswith(tempfile.gettempprefix())  # as MONAI Label names uploads: nobody's own file
    return named and file.parent == Path(tempfile.gettempdir()) and file.is_file()


@contextmanager
def discarding_upload(path: str) -> Iterator[None]:
    """Remove an uploaded file when the request fails; MONAI Label does after a success only."""
    try:
        yield
    except Exception:
        if is_upload(path):
            Path(path).unlink()
        raise


def require_plain_name(name: str) -> None:
    """Refuse a name that leads to another folder.

    Raises:
        HTTPException: 400.
    """
    if Path(name).name != name or name in ("", ".", "..") or "\\" in name:
        raise HTTPException(400, f"{name!r} is no plain name; expected: a name without folders")
