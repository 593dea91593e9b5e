"""Whether a file is DICOM, decided here for every reader, search and message."""

from pathlib import Path
from typing import Literal

DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
"""Endings that claim a file to be DICOM; a file that has one and cannot be read is damaged, not
passed over."""
HEAD = 4096  # bytes from the start of a file in which a DICOM object says what it is
Content = Literal["object", "directory", ""]
_MAGIC = b"DICM"
_DIRECTORY = b"1.2.840.10008.1.3.10"  # the SOP class of a DICOMDIR
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")  # 0002 and 0008, the latter in both orders of bytes


def recognize(head: bytes, name: str = "") -> Content:
    """Recognise a file by its first `HEAD` bytes, with or without DICOM's preamble and meta header.

    Old archives, modalities and toolkits write the bare data set (PS3.5), whose first element lies
    in group 0008. A file whose `name` ends as DICOM files do counts as DICOM whatever it holds.

    Returns:
        "object" (an image, a report, ...), "directory" (a DICOMDIR), or "" for a file that is not
        DICOM.
    """
    part10 = head[128:132] == _MAGIC
    if part10 and _DIRECTORY not in head:
        return "object"  # without parsing: all files of most series
    sop_class = ""
    if part10 or head[:2] in _FIRST_GROUPS:
        from .files import read_sop_class  # pydicom, which no other format needs

        sop_class = read_sop_class(head)
    if sop_class == _DIRECTORY.decode():
        return "directory"
    return "object" if sop_class or part10 or name.lower().endswith(DICOM_SUFFIXES) else ""


def is_dicom(path: Path) -> bool:
    """Tell whether a path stands for DICOM: a folder, a .zip, or a file named as nothing else."""
    if path.is_dir() or path.suffix.lower() == ".zip":
        return True
    return path.suffix.lower() in ("", ".img", *DICOM_SUFFIXES) and bool(recognize_file(path))


def recognize_file(path: Path) -> Content:
    """Tell what a file is, see `recognize`; raise OSError if it cannot be read."""
    with path.open("rb") as file:
        return recognize(file.read(HEAD), path.name)
