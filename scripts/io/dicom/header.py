"""What a DICOM file says about its slices, read without its pixels."""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.encaps import parse_fragments
from pydicom.multival import MultiValue
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from ...errors import UserError
from ..limits import check_limit
from .files import UNREADABLE_FILE, read_header
from .recognition import HEAD, recognize

COMPLETE = "complete DICOM files (copy the series again from where it came)"
CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "PatientID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("AcquisitionDate", "StudyDate"),
    *("FrameOfReferenceUID", "SeriesNumber", "AcquisitionNumber", "InstanceNumber", "TemporalPositionIdentifier"),
    *("TemporalPositionIndex", "NominalPercentageOfCardiacPhase", "EchoNumbers", "ContrastBolusAgent"),
    *("Modality", "ImageType", "Manufacturer", "ManufacturerModelName", "BodyPartExamined", "PatientPosition"),
    *("KVP", "ConvolutionKernel", "SliceThickness", "SpacingBetweenSlices", "GantryDetectorTilt"),
    *("ImagePositionPatient", "ImageOrientationPatient", "SliceLocation", "PixelSpacing", "Rows", "Columns"),
    *("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "NumberOfFrames"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "LossyImageCompression"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]
IDENTITY = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
"""What names an image."""
_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns")
_LONGEST = 200  # characters; a valid value of what is read as text is shorter
_PIXEL_DATA = struct.pack("<HH", 0x7FE0, 0x0010), struct.pack(">HH", 0x7FE0, 0x0010)


@dataclass(frozen=True)
class Slice:
    """One image plane: a file of its own, or a frame of a multi-frame file."""

    path: Path
    frame: int  # index of the frame in the file
    rows: int  # pixels from top to bottom
    columns: int  # pixels from left to right
    position: tuple[float, ...] | None  # ImagePositionPatient, mm, LPS; None if the file does not say
    orientation: tuple[float, ...] | None  # ImageOrientationPatient: directions of a row, of a column
    pixel_spacing: tuple[float, ...] | None  # mm between rows, between columns; None if not positive
    location: float | None  # SliceLocation in mm; None if absent
    thickness: float | None  # SliceThickness in mm; None if absent or not positive
    step: float | None  # SpacingBetweenSlices in mm; None if absent or not positive
    tilt: float  # GantryDetectorTilt in degrees
    rescale: tuple[float, float] | None  # slope and intercept to HU; None if the file has none
    localizer: bool  # whether it is a scout view
    complete: bool  # whether the file holds all of its pixels
    preamble: bool  # whether the file starts with 128 bytes and DICM (PS3.10)
    header: Dataset  # the attributes that the reader looks at, a frame's own ones included

    @property
    def compression(self) -> UID:
        """The transfer syntax."""
        return UID(self.header.file_meta.TransferSyntaxUID)

    @property
    def ct(self) -> bool:
        """Return whether the object is a CT image, not a picture, report or display setting."""
        return self.header.SOPClassUID in CT_CLASSES


def read_slices(path: Path) -> list[Slice]:
    """Read the headers of one file: one slice, or one for each frame of a multi-frame file.

    There is none where the file is not DICOM or a DICOMDIR. An object of another class is one slice
    without a place; its SeriesInstanceUID is empty if it belongs to none. UserError for a DICOM
    file that ends early or cannot be parsed.
    """
    try:
        with path.open("rb") as file, disable_value_validation():  # its warnings would show the values
            head = file.read(HEAD)
            if recognize(head, path.name) != "object":
                if head and not any(head):
                    raise EOFError("it begins with zeros only, as after a crash of the disk")
                return []
            file.seek(0)
            header = read_header(file, _TAGS)
            stated = header.get("SOPClassUID"), header.file_meta.get("MediaStorageSOPClassUID")
            sop_class = stated[0] or stated[1]
            if not sop_class or (not header.get("SeriesInstanceUID") and any(one in CT_CLASSES for one in stated)):
                raise EOFError("SOPClassUID or SeriesInstanceUID is missing")
            header.SOPClassUID = UID(sop_class)
            header.SeriesInstanceUID = header.get("SeriesInstanceUID") or ""
            complete = _has_all_pixels(file, header)
            count = frame_count(header) if sop_class in CT_CLASSES else 1
            check_limit(path, "frames", count, "frames (NumberOfFrames)")
            return [_slice(path, header, frame, complete) for frame in range(count)]
    except UNREADABLE_FILE as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: truncated, damaged or no DICOM file ({reason}); expected: {COMPLETE}") from None


def get_numbers(header: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return `count` finite numbers; None where the attribute is absent or holds other values."""
    try:
        with disable_value_validation():
            value = header.get(keyword)
        found = tuple(float(one) for one in (value if isinstance(value, MultiValue) else [value]))
    except UNREADABLE_FILE:  # OSError too: sequences are parsed when they are asked for
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def get_number(header: Dataset, keyword: str) -> float | None:
    """Return one finite number or None."""
    found = get_numbers(header, keyword, 1)
    return found[0] if found else None


def get_text(header: Dataset, keyword: str) -> str:
    """Return an attribute as one short printable line, values joined by backslashes; or ""."""
    try:
        with disable_value_validation():
            value: Any = header.get(keyword)
    except UNREADABLE_FILE:
        return ""
    words = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value if value is not None else "")
    return " ".join("".join(c if c.isprintable() else " " for c in words).split())[:_LONGEST]


def reference(header: Dataset) -> Dataset:
    """Return the part of a header that names an image and places it; the rest need not stay."""
    part = Dataset()
    part.file_meta = header.file_meta
    for keyword in filter(header.__contains__, (*IDENTITY, "InstanceNumber", *_GEOMETRY)):
        part[keyword] = header.get_item(keyword)  # as it was read: who uses it finds what is damaged
    return part


def is_known(syntax: UID) -> bool:
    """Whether a transfer syntax is one of the standard's, and not a vendor's own."""
    return not syntax.is_private and syntax.type == "Transfer Syntax"


def _slice(path: Path, header: Dataset, frame: int, complete: bool) -> Slice:
    preamble = getattr(header, "preamble", None) is not None
    header = _of_frame(header, frame)
    slope, intercept = get_number(header, "RescaleSlope"), get_number(header, "RescaleIntercept")
    image_type = get_text(header, "ImageType") + "\\" + get_text(header, "FrameType")
    return Slice(
        path=path,
        frame=frame,
        rows=int(get_number(header, "Rows") or 0),
        columns=int(get_number(header, "Columns") or 0),
        position=get_numbers(header, "ImagePositionPatient", 3),
        orientation=get_numbers(header, "ImageOrientationPatient", 6),
        pixel_spacing=_positive(get_numbers(header, "PixelSpacing", 2)),
        location=get_number(header, "SliceLocation"),
        thickness=(_positive(get_numbers(header, "SliceThickness", 1)) or (None,))[0],
        step=(_positive(get_numbers(header, "SpacingBetweenSlices", 1)) or (None,))[0],
        tilt=get_number(header, "GantryDetectorTilt") or 0.0,
        rescale=(slope, intercept) if slope and intercept is not None else None,
        localizer="LOCALIZER" in image_type.upper().split("\\"),
        complete=complete,
        preamble=preamble,
        header=header,
    )


def _of_frame(header: Dataset, frame: int) -> Dataset:
    """The header with what the functional groups say of one frame in its place (PS3.3 C.7.6.16)."""
    groups = list(header.get("SharedFunctionalGroupsSequence") or [])[:1]
    if header.get("PerFrameFunctionalGroupsSequence"):
        groups.append(header.PerFrameFunctionalGroupsSequence[frame])
    if not groups:
        return header
    flat = Dataset()
    flat.file_meta = header.file_meta
    flat.update({e.tag: e for e in header if not e.keyword.endswith("FunctionalGroupsSequence")})
    for group in groups:
        for element in group:
            if element.VR == "SQ" and element.value:
                flat.update(element.value[0])
    return flat


def _positive(found: tuple[float, ...] | None) -> tuple[float, ...] | None:
    return found if found and min(found) > 0 else None


def frame_count(header: Dataset) -> int:
    """Return how many frames a file says that it holds; 1 where it does not say."""
    return max(int(get_number(header, "NumberOfFrames") or 1), 1)


def _has_all_pixels(file: BinaryIO, header: Dataset) -> bool:
    """Whether the file, positioned where its pixels begin, goes on for as long as they are."""
    syntax = UID(header.file_meta.TransferSyntaxUID)
    if not is_known(syntax) or syntax.is_deflated:
        return True  # how the pixels lie is not known; or the position belongs to the inflated copy
    start = file.tell()
    size = file.seek(0, 2)
    file.seek(start)
    if file.read(4) not in _PIXEL_DATA:
        return False
    data = start + (8 if header.original_encoding[0] else 12)
    if not syntax.is_compressed:
        pixels = math.prod(get_number(header, tag) or 0 for tag in ("Rows", "Columns", "BitsAllocated"))
        return size - data >= pixels * (get_number(header, "SamplesPerPixel") or 1) * frame_count(header) / 8
    file.seek(data)
    try:
        _, items = parse_fragments(file)  # the first is the offset table
    except ValueError:
        return False
    if len(items) < 2:
        return False
    file.seek(items[-1] + 4)
    length = file.read(4)
    return len(length) == 4 and items[-1] + 8 + struct.unpack("<L", length)[0] <= size
