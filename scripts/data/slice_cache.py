"""Keep arrays of cases on disk between trainings."""

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..files import code_digest, digest, locked, user_cache, write_atomic
from ..io.reading import scan_files
from ..settings import optional
from ..transforms.steps import settings

logger = logging.getLogger(__name__)

MOST_BYTES = 20 * 2**30
"""What the user's cache may hold when a training starts: 61,000 slices of 256 x 256."""

ROOMS = ("anatomy", "data", "io", "transforms")
"""Where the code is that preprocesses: another one may find other lungs."""

CASE_SETTINGS = ("intensity", "label_codes", "label_scale", "soft_scale", "lesion_free", "slices")
"""What a case says of its files, and which of its slices are kept."""


def cache_folder(cache_dir: str | None) -> str | None:
    """Return where to keep slices: a folder that is given, or "auto" for the user's own.

    The user's own is `slices` in `user_cache`. Entries that were used longest ago are removed from
    it until it holds at most `MOST_BYTES`. A given folder is never emptied.

    Args:
        cache_dir: a folder, "auto", or "null" for none.
    """
    given = optional(cache_dir)
    if str(given).strip().lower() != "auto":
        return None if given is None else str(given)
    folder = user_cache("slices")
    if folder is None:
        return None
    _prune(folder)
    return str(folder)


def kept(entry: Path, names: Sequence[str], make: Callable[[], Sequence[np.ndarray[Any, Any]]]) -> Any:
    """Find or make the arrays of an entry; several processes may ask for the same one.

    Args:
        entry: folder of the entry.
        names: names of the arrays.
        make: makes them.

    Returns:
        Their files; the arrays themselves where the folder cannot be written.
    """
    files = [entry / f"{name}.npy" for name in names]
    made: Sequence[np.ndarray[Any, Any]] | None = None
    try:
        with locked(entry):
            if not all(file.exists() for file in files):
                made = make()
                for file, array in zip(files, made, strict=True):
                    write_atomic(file, partial(np.save, arr=array))
            os.utime(entry)
    except OSError as error:
        logger.warning(f"{entry}: {error}; what it was to hold is kept in memory")
        return make() if made is None else made
    return files


def cache_key(case: Mapping[str, Any], paths: Iterable[str], grid: Any) -> str | None:
    """Return a key that changes with files, the case's settings, preprocessing and its code.

    Args:
        case: a case of a datalist.
        paths: keys of its files.
        grid: its preprocessing.

    Returns:
        The key; None for steps that cannot be told apart by their attributes.
    """
    try:
        return digest([case_content(case, paths, CASE_SETTINGS), settings(grid)])[:32]
    except TypeError as error:
        logger.warning(f"slices are kept in memory: a step of the preprocessing cannot be named ({error})")
        return None


def case_content(case: Mapping[str, Any], paths: Iterable[str], chosen: Iterable[str]) -> dict[str, Any]:
    """Return what determines what the preprocessing makes of a case, as JSON could hold it.

    Args:
        case: a case of a datalist.
        paths: keys of the files that are read; each file counts with its key, path, size and time.
        chosen: keys of the case's settings that are heeded, see `CASE_SETTINGS`.
    """
    files = [(key, file.resolve()) for key in paths if case.get(key) for file in _files(Path(case[key]))]
    stamps = [(key, str(file), file.stat().st_size, file.stat().st_mtime_ns) for key, file in files]
    return {"files": stamps, **{key: case.get(key) for key in chosen}, "code": code_digest(*ROOMS)}


def _files(path: Path) -> list[Path]:
    """Return the files of a scan: those of a folder, and the voxels behind a header."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else scan_files(path)


def _prune(folder: Path) -> None:
    """Remove the entries that were used longest ago until at most `MOST_BYTES` are left."""
    entries: list[tuple[float, int, Path]] = []
    for entry in folder.iterdir():
        with suppress(OSError):  # another process may be removing it
            size = sum(file.stat().st_size for file in entry.rglob("*"))
            entries.append((entry.stat().st_mtime, size, entry))
    held = sum(size for _, size, _ in entries)
    for _, size, entry in sorted(entries):
        if held <= MOST_BYTES:
            return
        shutil.rmtree(entry, ignore_errors=True)
        held -= size
