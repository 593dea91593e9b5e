"""Whether a file is DICOM, and how its header is read: decided here for every reader, search and message."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset  # where pydicom 2 has it too, which MONAI Label needs
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)

DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
"""Endings that claim a file to be DICOM; a file that has one and cannot be read is damaged, not
passed over."""
HEAD = 4096
"""Bytes from the start of a file in which a DICOM object says what it is."""
UNREADABLE: tuple[type[Exception], ...] = (
    *(ValueError, TypeError, LookupError, AttributeError, RuntimeError, OverflowError, EOFError),
    *(struct.error, zlib.error, BytesLengthException, InvalidDicomError),
)
"""What pydicom raises for damaged values."""
UNREADABLE_FILE: tuple[type[Exception], ...] = (OSError, *UNREADABLE)

Content = Literal["object", "directory", ""]
_MAGIC = b"DICM"
_SOP_CLASS, _SOP_INSTANCE = Tag("SOPClassUID"), Tag("SOPInstanceUID")
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")  # 0002 and 0008, the latter in both orders of bytes


def recognize(head: bytes, name: str = "") -> Content:
    """Tells what a file is from its first bytes, with or without the preamble and the meta header of part 10.

    Old archives, modalities and toolkits write the bare data set (PS3.5), whose first element lies
    in group 0008.

    Args:
        head: the first `HEAD` bytes, or fewer where the file is shorter.
        name: the file's name; one that ends as DICOM files do counts as DICOM whatever it holds.

    Returns:
        "object" (an image, a report, ...), "directory" (a DICOMDIR), or "" for a file that is not
        DICOM.
    """
    part10 = head[128:132] == _MAGIC
    if part10 and MediaStorageDirectoryStorage.encode() not in head:
        return "object"  # without parsing: all files of most series
    sop_class = _sop_class(head)
    if sop_class == MediaStorageDirectoryStorage:
        return "directory"
    return "object" if sop_class or part10 or name.lower().endswith(DICOM_SUFFIXES) else ""


def recognize_file(path: Path) -> Content:
    """Tells what a file is, see `recognize`; raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return recognize(file.read(HEAD), path.name)


def _sop_class(head: bytes) -> UID | None:
    """The SOP class that the start of a file states; None where there is none."""
    if head[128:132] != _MAGIC and head[:2] not in _FIRST_GROUPS:
        return None
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            header = read_partial(BytesIO(head), _is_behind_class, force=True, specific_tags=[_SOP_CLASS])
            found = UID(str(header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID") or ""))
    except UNREADABLE:
        return None
    return found if found.is_valid and "." in found else None


def _is_behind_class(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag >= _SOP_INSTANCE


def read_header(file: BinaryIO, tags: Sequence[str] | None = None) -> Dataset:
    """Reads the attributes of a DICOM file up to its pixels, where the file is left.

    A file without meta header gets the transfer syntax that its data set is written in, so that
    whatever needs it finds it where it belongs.

    Args:
        file: open at its start; `recognize` said that it is DICOM.
        tags: keywords of the attributes that are needed; None reads all.

    Raises:
        One of `UNREADABLE_FILE`: if the file is damaged.
    """
    wanted = None if tags is None else list(tags)
    with warnings.catch_warnings(), disable_value_validation():  # the warnings would show the values
        warnings.simplefilter("ignore")
        header = dcmread(file, stop_before_pixels=True, specific_tags=wanted, force=True)
    if not header.file_meta.get("TransferSyntaxUID"):
        header.file_meta = FileMetaDataset(header.file_meta)
        header.file_meta.TransferSyntaxUID = _written_syntax(header)
    return header


def _written_syntax(header: Dataset) -> UID:
    implicit, little = header.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian
