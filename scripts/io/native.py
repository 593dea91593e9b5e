"""Read through ITK and GDCM in a process of its own, whose death is no more than an error.

Both are native code that damaged files can end (a segmentation fault), block, or let take all
memory. The process is started when it is first needed, limited in memory and time, and kept for
the next file.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

_PROGRAM = Path(__file__).with_name("native_child.py")
_BYTES, _BYTES_A_VOXEL = 2**30, 32  # memory for one request: JPEG 2000 takes the most for a voxel
_SECONDS, _VOXELS_A_SECOND = 10, 2_000_000  # processor time for one request
_TYPES = "iuf"


class NativeError(Exception):
    """What ITK or GDCM says of a file that it cannot read, or how the process ended."""


@dataclass(frozen=True)
class Information:
    """The grid of an image as ITK reads it, axes x, y, z, ..., LPS."""

    size: tuple[int, ...]
    origin: tuple[float, ...]  # mm
    spacing: tuple[float, ...]  # mm
    direction: tuple[float, ...]  # a matrix, row after row
    components: int  # values a voxel
    type: str  # of the values, in ITK's words


def inspect(path: Path, io: str) -> Information:
    """Read the header of an image through an ITK reader.

    Raises:
        NativeError: if that fails.
        UserError: for a path that is not UTF-8.
    """
    check_path(path)
    found, _ = _used(_take(), {"path": str(path), "io": io, "inspect": True}, 0)
    size, origin, spacing, direction = (tuple(found[key]) for key in ("size", "origin", "spacing", "direction"))
    return Information(size, origin, spacing, direction, found["components"], found["type"])


def read(path: Path, io: str, voxels: int) -> NDArray[Any]:
    """Read the values of an image through ITK.

    Args:
        path: the file.
        io: the reader, in ITK's words: "GDCMImageIO", "NrrdImageIO", "MetaImageIO".
        voxels: how many the header states.

    Returns:
        The values, axes (..., z, y, x).

    Raises:
        NativeError: if they cannot be read, or are more or fewer.
        UserError: for a path that is not UTF-8.
    """
    check_path(path)
    _, values = _used(_take(), {"path": str(path), "io": io, "inspect": False}, voxels)
    assert values is not None
    return values


def check_path(path: Path) -> None:
    """Raise UserError for a path that SimpleITK, which wants UTF-8, cannot take."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        found = "the path is not UTF-8, which SimpleITK needs for NRRD, MetaImage and DICOM"
        raise UserError(f"{path}: {found}; expected: other names of file and folders") from None


def _used(child: _Child, request: dict[str, Any], voxels: int) -> tuple[dict[str, Any], NDArray[Any] | None]:
    """Ask a process and keep it for the next file, unless it ended or was interrupted."""
    seconds = _SECONDS + voxels // _VOXELS_A_SECOND
    whole = request | {"bytes": _BYTES + _BYTES_A_VOXEL * voxels, "seconds": seconds}
    try:
        answer = child.ask(whole, voxels)
    except BaseException:
        child.end()
        raise
    _idle.append(child)
    if "error" in answer[0]:
        raise NativeError(answer[0]["error"])
    return answer


class _Child:
    """The process that reads."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process alone
            pipesize=2**20,
        )
        self.end = weakref.finalize(self, _end, self.process, os.getpid())  # also at this process's exit
        _leave_at_fork()

    def ask(self, request: dict[str, Any], voxels: int) -> tuple[dict[str, Any], NDArray[Any] | None]:
        """Send a request and return the answer; NativeError if the process ended over it."""
        asked, answers = self.process.stdin, self.process.stdout
        assert asked is not None
        assert answers is not None
        try:
            asked.write(json.dumps(request).encode() + b"\n")
            asked.flush()
            answer = json.loads(answers.readline())
            return answer, _values(answers, answer, voxels) if "shape" in answer else None
        except (OSError, EOFError, ValueError):
            raise NativeError(f"its reader ended: {self._why(request['seconds'])}") from None

    def _why(self, seconds: int) -> str:
        self.process.kill()  # without effect on one that has ended
        code = self.process.wait()
        if os.name == "posix" and code == -signal.SIGXCPU:
            return f"more than {seconds} s of work"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _values(answers: IO[bytes], answer: dict[str, Any], voxels: int) -> NDArray[Any]:
    """Receive voxels; NativeError where they are not as many numbers as expected."""
    shape: Sequence[int] = answer["shape"]
    dtype = np.dtype(answer["dtype"])
    if math.prod(shape) != voxels or dtype.kind not in _TYPES:
        raise NativeError(f"{math.prod(shape)} values of type {dtype}; the header states {voxels}")
    values = np.empty(shape, dtype)
    if answers.readinto(values.reshape(-1).view(np.uint8).data) != values.nbytes:  # type: ignore[attr-defined]
        raise EOFError
    return values


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """End a process that reads; one forked from its owner only closes its copies of the pipes."""
    if os.getpid() == owner:
        process.kill()
        process.communicate()
        return
    for pipe in (process.stdin, process.stdout):
        pipe.raw.close()  # type: ignore[union-attr]  # without what a thread of the owner was writing


_idle: list[_Child] = []
"""Processes that wait for the next file."""


@cache
def _leave_at_fork() -> None:
    """Let forked processes leave their parent's processes alone; once is enough."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_idle.clear)


def _take() -> _Child:
    """Return a process that waits, or a new one."""
    while _idle:
        child = _idle.pop()
        if child.process.poll() is None:
            return child
    return _Child()
