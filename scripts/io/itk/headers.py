"""The text headers of NRRD and MetaImage: what ITK does not tell, completeness of voxels.

After the format definitions of NRRD (teem.sourceforge.net/nrrd/format.html) and MetaImage
(itk.org/Wiki/MetaIO).
"""

from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from ..payload import verify_compressed

_LONGEST_HEADER = 1 << 20
_LOCAL = ("", "local")


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
    """Read the header of .nrrd, .nhdr, .mha or .mhd; UserError for a file that begins otherwise."""
    nrrd = path.suffix.lower() in (".nrrd", ".nhdr")
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        if nrrd and not file.readline(80).startswith(b"NRRD000"):
            raise UserError(f"{path}: {path.stat().st_size} bytes that do not begin with NRRD000; expected: NRRD")
        while file.tell() < _LONGEST_HEADER and (line := file.readline(_LONGEST_HEADER)).strip():
            key, _, value = line.decode("latin-1").partition(":" if nrrd else "=")
            fields[key.strip().lower()] = value.strip()
            if key.strip().lower() == "elementdatafile":
                break
        end = file.tell()
    if "dimension" not in fields and "ndims" not in fields:
        expected = "NRRD" if nrrd else "MetaImage"
        raise UserError(f"{path}: {path.stat().st_size} bytes and no {expected} header; expected: {expected}")
    return TextHeader("NRRD" if nrrd else "MetaImage", fields, end)


def find_data(path: Path, header: TextHeader) -> Path | None:
    """Return the voxels' file, None for several (left to ITK); UserError if it is missing."""
    name = header.data_file
    if name.split(" ")[0].lower() == "list" or "%" in name:
        return None
    data = path.parent / name if name else path
    if not data.is_file():
        raise UserError(f"{path}: its voxels are in {name}, which is missing; expected: both files side by side")
    return data


def check_data(data: Path | None, path: Path, header: TextHeader, expected: int) -> None:
    """Raise UserError for voxels in `data`, see `find_data`, that are cut off or damaged.

    Text and bzip2 are left to ITK, as are headers that skip bytes. `expected` are the bytes of the
    voxels, unpacked.
    """
    skips = any(header.fields.get(key, "0") not in ("0", "-1") for key in ("byte skip", "line skip", "headersize"))
    if data is None or skips:
        return
    offset = header.end if data == path else 0
    if header.compressed:
        verify_compressed(data, offset, expected)
    found = data.stat().st_size - offset
    if header.plain and found < expected:
        raise UserError(f"{data}: {found} bytes of voxels; expected: {expected}, as the header says; it is cut off")
