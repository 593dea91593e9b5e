"""The text headers of NRRD and MetaImage: what ITK does not tell, completeness of voxels.

After the format definitions of NRRD (teem.sourceforge.net/nrrd/format.html) and MetaImage
(itk.org/Wiki/MetaIO).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ..limits import check_limit, check_size, limits
from ..payload import verify_compressed

_LOCAL = ("", "local")
_MOST_FILES = 100_000


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
        name = self.fields.get("data file", self.fields.get("datafile", self.fields.get("elementdatafile", "")))
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
            key, _, value = line.decode("latin-1").partition(":" if nrrd else "=")
            fields[key.strip().lower()] = value.strip()
            if key.strip().lower() == "elementdatafile":
                break
        end = file.tell()
    header = TextHeader("NRRD" if nrrd else "MetaImage", fields, end)
    check_size(path, header.sizes(path))
    return header


def find_data(path: Path, header: TextHeader) -> list[Path]:
    """Return the files of the voxels, `path` itself where they follow the header.

    Raises:
        UserError: if one is missing or no plain file, or their names cannot be made out.
    """
    name = header.data_file
    files = [path.parent / one for one in _names(path, header)] if name else [path]
    for file in files:
        if not file.is_file():
            raise UserError(f"{path}: its voxels are in {file.name}, which is missing; expected: both side by side")
    return files


def _names(path: Path, header: TextHeader) -> Iterator[str]:
    """Name the files of the voxels: one, those of a pattern with a range, or those of a list."""
    name = header.data_file
    if name.split()[0].upper() == "LIST":
        with path.open("rb") as file:
            file.seek(header.end)
            text = file.read(limits().header_bytes).decode("latin-1")
        yield from filter(None, map(str.strip, text.splitlines()))
    elif "%" in name:
        pattern = re.fullmatch(r"([^%]*)%(0?\d?)d([^%]*?)((?: -?\d{1,9}){0,4})", name)
        numbers = [int(number) for number in pattern[4].split()] if pattern else []
        first, last, step = (*numbers, 1, 1, 1)[:3] if len(numbers) == 2 else (*numbers, 0, 0, 0)[:3]
        if pattern is None or step < 1 or not 0 <= last - first < _MOST_FILES * step:
            expected = "one number in the names, as slice%03d.raw, then first, last and step"
            raise UserError(f"{path}: its voxels are in {name}; expected: {expected}")
        for number in range(first, last + 1, step):
            yield f"{pattern[1]}{number:{pattern[2]}d}{pattern[3]}"
    else:
        yield name


def check_data(files: list[Path], path: Path, header: TextHeader, expected: int) -> None:
    """Raise UserError for voxels in `files`, see `find_data`, that are cut off or damaged.

    Text is left to ITK, as are headers that skip bytes and voxels in several files. `expected` are
    the bytes of the voxels, unpacked.
    """
    skips = any(header.fields.get(key, "0") not in ("0", "-1") for key in ("byte skip", "line skip", "headersize"))
    if len(files) > 1 or skips:
        return
    data = files[0]
    offset = header.end if data == path else 0
    if header.compressed:
        verify_compressed(data, offset, expected)
    found = data.stat().st_size - offset
    if header.plain and found < expected:
        raise UserError(f"{data}: {found} bytes of voxels; expected: {expected}, as the header says; it is cut off")
