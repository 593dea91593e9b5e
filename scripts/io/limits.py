"""How much a file may ask for: checked before memory is taken, raised by the user."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path

from ..errors import UserError


@dataclass(frozen=True)
class Limits:
    """The most that one input may hold.

    The defaults fit the largest scans of the clinic with room to spare: 1024 x 1024 x 1000 voxels,
    512 x 512 x 1500, ten cardiac phases of 512 x 512 x 400.
    """

    dimensions: int = 7  # axes of an array, as NIfTI has them
    slice_voxels: int = 4096**2  # along the two longest of the first three axes
    voxels: int = 2**30  # of a file, all its volumes together, or of a DICOM series
    frames: int = 20_000  # of one DICOM file
    header_line: int = 2**14  # bytes in a line of a NRRD or MetaImage header
    header_bytes: int = 2**20  # bytes in such a header
    trailing_bytes: int = 2**28  # unpacked bytes behind the voxels of a compressed file
    inflated_bytes: int = 2**30  # of one DICOM file with deflated transfer syntax
    ratio: int = 1100  # unpacked bytes for each packed one; deflate reaches 1,032
    archive_files: int = 100_000  # entries of a .zip
    archive_bytes: int = 16 * 2**30  # of a .zip, unpacked


VARIABLE = "LUNG_INFECTION_CT_LIMITS"
"""The environment variable that raises limits where there is no `--limit`, as in training."""

_current: ContextVar[Limits | None] = ContextVar("limits", default=None)


def limits() -> Limits:
    """Return the limits that hold here: those of `limited`, else the environment's."""
    return _current.get() or _of_environment(os.environ.get(VARIABLE, ""))


@cache  # asked for with every chunk of a file
def _of_environment(text: str) -> Limits:
    return _parse(text.replace(",", " ").split(), Limits(), f"environment variable {VARIABLE}: ")


@contextmanager
def limited(to: Limits) -> Iterator[None]:
    """Let other limits hold in a block, in this thread."""
    token = _current.set(to)
    try:
        yield
    finally:
        _current.reset(token)


def parse_limits(words: Sequence[str]) -> Limits:
    """Read limits that a user set as NAME=NUMBER; the others stay those of `limits`.

    Raises:
        UserError: for another name, and for what is no whole number from 1.

    >>> parse_limits(["voxels=4e9"]).voxels
    4000000000
    """
    return _parse(words, limits(), "--limit ")


def _parse(words: Sequence[str], others: Limits, where: str) -> Limits:
    names = [one.name for one in fields(Limits)]
    chosen: dict[str, int] = {}
    for word in words:
        name, _, value = word.partition("=")
        name = name.strip().replace("-", "_")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if name not in names or not (1 <= number < 2**63 and number.is_integer()):
            raise UserError(f"{where}{word}: expected: NAME=NUMBER, a whole one from 1, of {', '.join(names)}")
        chosen[name] = int(number)
    return replace(others, **chosen)


def check_limit(source: str | Path, name: str, found: float, what: str) -> None:
    """Raise UserError where an input holds more than a limit.

    Args:
        source: the file.
        name: the limit, a field of `Limits`.
        found: how many there are.
        what: of what, for the message.
    """
    most = getattr(limits(), name)
    if found > most:
        raise UserError(f"{source}: {found:,} {what}; expected: at most {most:,} ({how_to_raise(name)})")


def how_to_raise(name: str) -> str:
    """Return the end of a refusal that names the limit, a field of `Limits`.

    >>> how_to_raise("voxels")
    '--limit voxels=N or LUNG_INFECTION_CT_LIMITS=voxels=N raises it'
    """
    return f"--limit {name}=N or {VARIABLE}={name}=N raises it"


def check_size(source: str | Path, sizes: Sequence[int]) -> None:
    """Raise UserError for an array (X, Y, Z, ...) of more voxels or axes than the limits."""
    check_limit(source, "dimensions", len(sizes), "dimensions")
    shown = " x ".join(map(str, sizes))
    check_limit(source, "slice_voxels", math.prod(sorted(sizes[:3])[-2:]), f"voxels in a slice ({shown})")
    check_limit(source, "voxels", math.prod(sizes), f"voxels ({shown})")
