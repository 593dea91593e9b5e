"""The text headers of NRRD and MetaImage: what ITK does not tell, completeness of voxels.

After the format definitions of NRRD (teem.sourceforge.net/nrrd/format.html) and MetaImage
(itk.org/Wiki/MetaIO).
"""

import math
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ..limits import check_limit, check_size, limits
from ..payload import verify_compressed

_LOCAL = ("", "local")
_MOST_FILES = 100_000
_LIST = re.compile(r"LIST(?:\s+([1-9])D?)?", re.IGNORECASE)  # its names follow the header; axes of one file
_NO_OTHER_UNIT = ("", "?", "mm", "millimeter", "millimeters", "millimetre", "millimetres")
_FUNCTION = {"elementtointensityfunctionslope": 1.0, "elementtointensityfunctionoffset": 0.0}
_DATA_FILE = ("data file", "datafile", "elementdatafile")


@dataclass(frozen=True)
class TextHeader:
    """A header's lines."""

    format: str  # "NRRD" or "MetaImage"
    fields: dict[str, str]  # values by key, keys in lower case
    end: int  # the byte after the header, where attached voxels start

    @property
    def oriented(self) -> bool:
        """Whether it says how the axes lie in the patient."""
        keys = ("space directions", "transformmatrix", "orientation", "rotation")
        named = self.format == "MetaImage" or "space" in self.fields
        return named and any(key in self.fields for key in keys)

    @property
    def sized(self) -> bool:
        """Whether it holds a voxel size."""
        return any(key in self.fields for key in ("space directions", "spacings", "elementspacing", "elementsize"))

    @property
    def unit(self) -> str:
        """The unit of length where it is not mm; empty for mm and where none is named."""
        spatial = [self.fields.get("space units", ""), *self.fields.get("units", "").split()[:3]]
        named = [*re.findall(r'"([^"]*)"', " ".join(spatial)), self.fields.get("distanceunits", "")]
        return next((unit for unit in named if unit.lower() not in _NO_OTHER_UNIT), "")

    @property
    def rescaled(self) -> bool:
        """Whether MetaImage means other intensities than it stores, which ITK passes over."""
        with suppress(ValueError):
            return any(float(self.fields.get(name, value)) != value for name, value in _FUNCTION.items())
        return True

    def sizes(self, path: Path) -> tuple[int, ...]:
        """Number of voxels along each axis, as stated; UserError for what is no such number."""
        keys = ("dimension", "sizes") if self.format == "NRRD" else ("ndims", "dimsize")
        counted, listed = (self.fields.get(key, "") for key in keys)
        numbers = listed.split()
        if not counted:
            found = f"{path.stat().st_size} bytes and no {self.format} header"
            raise UserError(f"{path}: {found}; expected: {self.format}")
        if not re.fullmatch(r"[1-9]\d?", counted) or len(numbers) != int(counted):
            found = f"{keys[0]} is {counted[:40]!r}, {keys[1]} {listed[:40]!r}"
            raise UserError(f"{path}: {found}; expected: a number of axes, and as many sizes")
        if not all(re.fullmatch(r"[1-9]\d{0,17}", number) for number in numbers):
            raise UserError(f"{path}: {keys[1]} is {listed[:80]!r}; expected: whole numbers from 1")
        return tuple(map(int, numbers))

    @property
    def data_file(self) -> str:
        """Name of a detached file of voxels; empty where they follow the header."""
        name = next((self.fields[key] for key in _DATA_FILE if key in self.fields), "")
        return "" if name.lower() in _LOCAL else name

    @property
    def compressed(self) -> bool:
        """Whether the voxels are a zlib or gzip stream."""
        gzip = self.fields.get("encoding", "").lower() in ("gzip", "gz")
        return gzip or self.fields.get("compresseddata", "").lower() == "true"

    @property
    def plain(self) -> bool:
        """Whether the voxels are bytes as in memory."""
        raw = self.fields.get("encoding", "").lower() == "raw"
        binary = self.fields.get("binarydata", "").lower() == "true"
        return (raw or binary) and not self.compressed


def read_text_header(path: Path) -> TextHeader:
    """Read the header of .nrrd, .nhdr, .mha or .mhd.

    Raises:
        UserError: for a file that begins otherwise, or whose header or array exceeds the limits.
    """
    nrrd = path.suffix.lower() in (".nrrd", ".nhdr")
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        if nrrd and not file.readline(80).startswith(b"NRRD000"):
            raise UserError(f"{path}: {path.stat().st_size} bytes that do not begin with NRRD000; expected: NRRD")
        while (line := file.readline(limits().header_line + 1)).strip():
            check_limit(path, "header_line", len(line), "or more bytes in a line of the header")
            check_limit(path, "header_bytes", file.tell(), "bytes of header")
            key, value = (word.strip() for word in line.decode("latin-1").partition(":" if nrrd else "=")[::2])
            fields[key.lower()] = value
            if key.lower() in _DATA_FILE and (not nrrd or _LIST.fullmatch(value)):
                break
        end = file.tell()
    header = TextHeader("NRRD" if nrrd else "MetaImage", fields, end)
    check_size(path, header.sizes(path))
    return header


def find_data(path: Path, header: TextHeader) -> list[Path]:
    """Return the files of the voxels, `path` itself where they follow the header.

    Raises:
        UserError: if one is missing or no plain file, if their names cannot be made out, or if they
            are more or fewer than the array needs.
    """
    files = [path.parent / one for one in _names(path, header)] if header.data_file else [path]
    for file in files:
        if not file.is_file():
            raise UserError(f"{path}: its voxels are in {file.name}, which is missing; expected: both side by side")
    return files


def _names(path: Path, header: TextHeader) -> list[str]:
    """Name the files of the voxels: one, those of a pattern with a range, or those of a list."""
    name, sizes = header.data_file, header.sizes(path)
    axes = len(sizes) - 1  # of one file, unless the header says so
    if listed := _LIST.fullmatch(name):
        with path.open("rb") as file:
            file.seek(header.end)
            text = file.read(limits().header_bytes).decode("latin-1")
        names = list(filter(None, map(str.strip, text.splitlines())))
        axes = int(listed[1] or axes)
    elif "%" in name:
        most = 4 if header.format == "NRRD" else 3
        pattern = re.fullmatch(rf"([^%]*)%(0?\d?)d([^%]*?)((?: -?\d{{1,9}}){{0,{most}}})", name)
        numbers = [int(number) for number in pattern[4].split()] if pattern else []
        first, last, step = (*numbers, 1, 1, 1)[:3] if len(numbers) == 2 else (*numbers, 0, 0, 0)[:3]
        if pattern is None or step < 1 or not 0 <= last - first < _MOST_FILES * step:
            expected = "one number in the names, as slice%03d.raw, then first, last and step"
            raise UserError(f"{path}: its voxels are in {name}; expected: {expected}")
        names = [f"{pattern[1]}{number:{pattern[2]}d}{pattern[3]}" for number in range(first, last + 1, step)]
        axes = (*numbers, axes)[3] if len(numbers) > 2 else axes
    else:
        return [name]
    _check_count(path, sizes, len(names), axes)
    return names


def _check_count(path: Path, sizes: tuple[int, ...], files: int, axes: int) -> None:
    """Refuse more or fewer files than the array has parts: ITK leaves parts without one unset."""
    most = min(axes, len(sizes) - 1)
    if axes != most or files != math.prod(sizes[axes:]):
        found = f"{' x '.join(map(str, sizes))} voxels in {files} files of {axes} axes each"
        raise UserError(f"{path}: {found}; expected: {math.prod(sizes[most:])} files of {most} axes")


def check_data(files: list[Path], path: Path, header: TextHeader, expected: int) -> None:
    """Raise UserError for voxels in `files`, see `find_data`, that are cut off or damaged.

    Text is left to ITK, as are headers that skip bytes. `expected` are the bytes of the voxels,
    unpacked; every file holds as many of them.
    """
    if any(header.fields.get(key, "0") not in ("0", "-1") for key in ("byte skip", "line skip", "headersize")):
        return
    each = expected // len(files)
    for data in files:
        offset = header.end if data == path else 0
        if header.compressed:
            verify_compressed(data, offset, each)
        found = data.stat().st_size - offset
        if header.plain and found < each:
            raise UserError(f"{data}: {found} bytes of voxels; expected: {each}, as the header says; it is cut off")
