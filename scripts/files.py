"""Files and folders that are either complete or absent: made beside their place, then renamed."""

import hashlib
import importlib.util
import json
import logging
import os
import platform
import re
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from .errors import UserError

logger = logging.getLogger(__name__)

_LOCKS = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None  # none on Windows

LONGEST_NAME = 255  # bytes in the name of a file or folder that the usual file systems take
CACHE = "LUNG_INFECTION_CT_CACHE"
"""Environment variable that moves the cache folder, or switches caches off with "off"."""
UNFINISHED = ".unfinished-"
"""How the folders begin in which something is made; the machine and the process that make it
follow."""


@contextmanager
def unfinished_folder(parent: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder in `parent`, made if absent, to be renamed to the result.

    The folder is removed at the end, however that comes. A process that is killed leaves its folder
    behind: the next one on this machine that makes something in `parent` removes it.
    """
    place = Path(parent)
    place.mkdir(parents=True, exist_ok=True)
    mine = f"{UNFINISHED}{platform.node()}-{_process_namespace()}"
    for folder in place.glob(f"{UNFINISHED}*"):
        named = re.fullmatch(rf"{re.escape(mine)}(\d+)-\w+", folder.name)  # no folder of a machine called NODE-1
        if named and not _is_running(int(named[1])):
            shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{mine}{os.getpid()}-", dir=place) as folder_name:
        yield Path(folder_name)


def _process_namespace() -> str:
    """Tell apart the containers of one machine, which number processes alike; may be empty."""
    try:
        return f"{Path('/proc/self/ns/pid').stat().st_ino}-"
    except OSError:
        return ""


def _is_running(process: int) -> bool:
    if os.name != "posix":
        return True  # elsewhere this question would end the process
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def replace_folder(built: Path, target: Path) -> None:
    """Put an `unfinished_folder` in its place; restore an earlier one when that fails."""
    earlier = built.with_name("earlier")
    if target.exists():
        target.rename(earlier)
    try:
        built.rename(target)
    except OSError:
        if earlier.exists():
            earlier.rename(target)
        raise


def check_results_folder(target: Path, names: Collection[str], overwrite: bool) -> None:
    """Raise UserError for a results folder that holds more than replaceable files of the names."""
    present = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if target.is_file() or (present and not (overwrite and present <= set(names))):
        raise UserError(f"{target}: exists; expected: a new folder, or --overwrite for one that this command wrote")


@contextmanager
def results_folder(target: Path, names: Collection[str], overwrite: bool) -> Iterator[Path]:
    """Yield a folder to write into, named `target` when the block has ended without an error.

    Arguments and errors are those of `check_results_folder`.
    """
    check_results_folder(target, names, overwrite)
    with unfinished_folder(target.parent) as folder:
        built = folder / "results"
        built.mkdir()
        yield built
        replace_folder(built, target)


def fit_name(stem: str, suffix: str = "") -> str:
    """Return `stem + suffix`, shortened to the 255 bytes of UTF-8 that file systems take.

    A shortened stem ends in eight digits of its SHA-256, so that different stems get different
    names and the same stem always gets the same.

    >>> fit_name("case", ".nii.gz")
    'case.nii.gz'
    """
    encoded = os.fsencode(stem)
    room = LONGEST_NAME - len(os.fsencode(suffix))
    if len(encoded) <= room:
        return stem + suffix
    ending = f"-{hashlib.sha256(encoded).hexdigest()[:8]}"
    return encoded[: room - len(ending)].decode(errors="ignore") + ending + suffix


def write_atomic(path: str | os.PathLike[str], write: Callable[[Path], Any]) -> Path:
    """Call `write` with a temporary path beside `path` and rename the result to `path`.

    A process that is killed at any moment leaves the old file or the new one, never a part of one.
    The temporary name keeps the suffixes of `path`, which many writers look at. The folder of
    `path` is made if absent.
    """
    target = Path(path)
    with unfinished_folder(target.parent) as folder:
        temporary = folder / target.name
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    return target


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write a text as UTF-8, atomically."""
    return write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: str | os.PathLike[str], encoding: str = "utf-8") -> Any:
    """Read JSON from a file.

    Raises:
        ValueError: for what is no JSON or is nested beyond Python's limit, and for a key that an
            object holds twice, of which Python would keep the last.
    """
    text = Path(path).read_text(encoding=encoding)
    try:
        return json.loads(text, object_pairs_hook=_each_key_once)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        times = Counter(key for key, _ in pairs)
        raise ValueError(f"the key {max(times, key=times.__getitem__)!r} is there more than once")
    return content


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Write `content` as indented JSON, atomically; NaN is refused because it is not JSON."""
    return write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


_held: dict[tuple[int, ...], list[int]] = {}
"""The handle with which a thread of a process locks a folder; in a list, because the numbers of
handles come again."""


@contextmanager
def locked(folder: str | os.PathLike[str], wait: bool = True) -> Iterator[None]:
    """Lock a folder, made if absent: let one process or thread after another use its files.

    The lock is on the folder itself, so that no file stays behind, and ends with the process, also
    with a kill, though processes that it forked live on. Where there are no such locks (Windows,
    some network disks) the block is entered at once. An interrupt beside the block can leave the
    folder locked: the thread's next lock of it that waits ends that one. So blocks of one thread on
    one folder must not be nested.

    Args:
        folder: what to lock.
        wait: for the others to end.

    Raises:
        UserError: without `wait`, if the folder is locked, by whomever.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    if _LOCKS is None:
        yield
        return
    _keep_locks_from_forks()
    mine = [os.open(place, os.O_RDONLY)]
    status = os.fstat(mine[0])
    owner = os.getpid(), threading.get_ident(), status.st_dev, status.st_ino
    if owner in _held:
        if not wait:
            os.close(mine[0])
            raise _taken(place)
        _unlock(owner)
    _held[owner] = mine
    try:
        with suppress(OSError):
            try:
                _LOCKS.flock(mine[0], _LOCKS.LOCK_EX | (0 if wait else _LOCKS.LOCK_NB))
            except BlockingIOError:
                raise _taken(place) from None
        yield
    finally:
        if _held.get(owner) is mine:
            _unlock(owner)


@cache
def _keep_locks_from_forks() -> None:
    """Let what is forked from now on, such as workers that load data, close these handles."""
    os.register_at_fork(after_in_child=_close_held)


def _close_held() -> None:
    for handles in _held.values():
        os.close(handles[0])
    _held.clear()


def _taken(place: Path) -> UserError:
    return UserError(f"{place}: another process works there; expected: another folder, or that process ended")


def _unlock(owner: tuple[int, ...]) -> None:
    """Unlock first, so that an interrupt between these lines leaves a handle and no lock."""
    assert _LOCKS is not None
    handle = _held[owner][0]
    with suppress(OSError):
        _LOCKS.flock(handle, _LOCKS.LOCK_UN)
    del _held[owner]
    os.close(handle)


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(content: Any) -> str:
    """Return the SHA-256 of what JSON can hold, the same for any order of keys, as 64 digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@cache
def code_digest(*rooms: str) -> str:
    """Return a digest of the code in some folders of this package, for what is kept of its work."""
    package = Path(__file__).parent
    code = hashlib.sha256()
    for file in sorted(file for room in rooms for file in (package / room).rglob("*.py")):
        code.update(file.read_bytes())
    return code.hexdigest()


def user_cache(name: str) -> Path | None:
    """Return a folder of the user for what can be made again, such as compiled models.

    It lies in `$LUNG_INFECTION_CT_CACHE`, else in `$XDG_CACHE_HOME/lung_infection_ct`, else in
    `~/.cache/lung_infection_ct`, and is made if absent.

    Args:
        name: what it holds.

    Returns:
        The folder; None where the environment variable is "off" or the folder cannot be written.
    """
    named = os.environ.get(CACHE, "").strip()
    if named.lower() == "off":
        return None
    try:
        base = Path(named or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lung_infection_ct")
        folder = base.expanduser() / name
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError) as error:  # a home that is not there raises the latter
        logger.warning(f"no cache is kept: {error}; expected: a folder for {CACHE} that you may write to, or off")
        return None
