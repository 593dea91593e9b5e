"""How the header of a DICOM file is read, and what can go wrong."""

import struct
import warnings
import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import BinaryIO

from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset  # where pydicom 2 has it too, which MONAI Label needs
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ..limits import how_to_raise, limits

UNREADABLE: tuple[type[Exception], ...] = (
    *(ValueError, TypeError, LookupError, AttributeError, RuntimeError, OverflowError, EOFError),
    *(struct.error, zlib.error, BytesLengthException, InvalidDicomError, MemoryError),
)
"""What pydicom raises for damaged values."""
UNREADABLE_FILE: tuple[type[Exception], ...] = (OSError, *UNREADABLE)

_META_START, _META_END = 132, 144  # of a file with preamble: its group length, what follows that
_CHUNK = 2**20
_SOP_CLASS, _SOP_INSTANCE = Tag("SOPClassUID"), Tag("SOPInstanceUID")


def read_sop_class(head: bytes) -> str:
    """Return the SOP class that the start of a file states; empty where there is none."""
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            header = read_partial(
                BytesIO(head), lambda tag, *_: tag >= _SOP_INSTANCE, specific_tags=[_SOP_CLASS], force=True
            )
            found = UID(str(header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID") or ""))
    except UNREADABLE:
        return ""
    return str(found) if found.is_valid and "." in found else ""


def read_header(file: BinaryIO, tags: Sequence[str] | None = None) -> Dataset:
    """Read the attributes of a DICOM file, open at its start, up to its pixels, where it is left.

    A file without meta header gets the transfer syntax that its data set is written in, so that
    whatever needs it finds it where it belongs. `tags` are keywords of the attributes that are
    needed; None reads all. A damaged file raises one of `UNREADABLE_FILE`.
    """
    wanted = None if tags is None else list(tags)
    _check_deflated(file)
    with warnings.catch_warnings(), disable_value_validation():  # the warnings would show the values
        warnings.simplefilter("ignore")
        header = dcmread(file, stop_before_pixels=True, specific_tags=wanted, force=True)
    if not header.file_meta.get("TransferSyntaxUID"):
        header.file_meta = FileMetaDataset(header.file_meta)
        header.file_meta.TransferSyntaxUID = _written_syntax(header)
    return header


def _check_deflated(file: BinaryIO) -> None:
    """Raise ValueError for a deflated data set beyond the limits, which pydicom inflates whole."""
    head = file.read(_CHUNK)
    file.seek(0)
    if DeflatedExplicitVRLittleEndian.encode() not in head:
        return
    if head[_META_START : _META_START + 6] != b"\x02\x00\x00\x00UL":
        raise ValueError("deflated, without the length of its meta header")
    file.seek(_META_END + int.from_bytes(head[_META_END - 4 : _META_END], "little"))
    engine, found = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while chunk := engine.unconsumed_tail or file.read(_CHUNK):
        found += len(engine.decompress(chunk, _CHUNK))
        if found > limits().inflated_bytes:
            most = f"{limits().inflated_bytes:,} bytes ({how_to_raise('inflated_bytes')})"
            raise ValueError(f"its deflated data set unpacks to more than {most}")
    file.seek(0)


def _written_syntax(header: Dataset) -> UID:
    implicit, little = header.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian
