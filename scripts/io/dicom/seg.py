"""The mask as a DICOM Segmentation object, on the slices that it was found on."""

import re
from copy import copy
from pathlib import Path

import numpy as np
from highdicom.color import CIELabColor
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.enum import SpecificCharacterSetValues
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from ...errors import UserError
from ...files import write_atomic
from ..volume import Scan
from .files import UNREADABLE, UNREADABLE_FILE, read_header
from .header import IDENTITY, get_number, get_numbers, get_text
from .segment_codes import CATEGORY, COLOUR, REGION, TYPE

LABEL = "COVID-19 infection"
_CATEGORY, _TYPE = CodedConcept(*CATEGORY), CodedConcept(*TYPE)
_COLOUR = CIELabColor.from_rgb(*COLOUR)
_MAY_BE_EMPTY = {  # and what their values match
    **dict.fromkeys(("PatientID", "PatientName", "AccessionNumber", "StudyID", "ReferringPhysicianName"), ".+"),
    **dict.fromkeys(("PatientBirthDate", "StudyDate"), r"\d{8}"),
    "PatientSex": "[MFO]",
    "StudyTime": r"\d{2,6}(\.\d{1,6})?",
}
_SERIES = "SeriesInstanceUID"
_REMEDY = "expected: DICOM files with complete headers; the other results do not need them"
_LONG_STRING = 64  # characters in a DICOM LO value
_HIGHEST_NUMBER = 2**31 - 1  # of a DICOM IS value (PS3.5 table 6.2-1)
_CHARACTER_SETS = {one.value for one in SpecificCharacterSetValues} - {"ISO 2022 IR 58"}  # highdicom combines that not
_DEFAULT_SET, _UTF8 = "ISO 2022 IR 6", "ISO_IR 192"


def write_dicom_seg(
    mask: NDArray[np.uint8], scan: Scan, path: Path, *, algorithm: str, version: str, description: str
) -> Path:
    """Write a binary DICOM SEG (PS3.3 A.51) with one segment, a new series in the scan's study.

    Slices with infection become frames that name their source slice and repeat its position; the
    patient's and the study's attributes are those of the scan, as a SEG must have them. Of an empty
    mask every slice is written as an empty frame, because a SEG needs at least one. Bound in
    memory: headers, and one bit a voxel of the frames.

    Args:
        mask: 0 or 1, (X, Y, Z), in the scan's stored axes.
        scan: what `read_dicom` returned; its first file must still be there.
        path: the file to write.
        algorithm: name of the model.
        version: version of the model or the software.
        description: of the series, at most 64 characters are kept.

    Raises:
        ValueError: if the mask has not the scan's shape or holds other values than 0 and 1.
        UserError: if the scan's files lack what a SEG must repeat of them.
    """
    if mask.shape != scan.values.shape or mask.max(initial=0) > 1:
        raise ValueError(f"mask {mask.shape}, highest {mask.max()}; expected: 0 and 1 in {scan.values.shape}")
    if not scan.files:
        raise ValueError(f"{scan.path} ({scan.kind}) has no DICOM files that a SEG could refer to")
    sources = _read_sources(scan)
    frames = mask.transpose(2, 1, 0)  # a view
    count = int(get_number(sources[0], "NumberOfFrames") or 1)
    if count > 1:
        if len(sources) > 1:
            raise UserError(f"{scan.path.name}: {len(sources)} multi-frame files; expected for a DICOM SEG: one")
        planes, frames = frames, np.zeros((count, *frames.shape[1:]), np.uint8)
        frames[scan.frames] = planes  # sorted along the normal before
    try:
        segmentation = _segmentation(frames, sources, algorithm, version, description)
        return write_atomic(path, lambda temporary: segmentation.save_as(temporary, enforce_file_format=True))
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{scan.path.name}: no DICOM SEG can refer to this series ({reason}); {_REMEDY}") from None


def _segmentation(
    frames: NDArray[np.uint8], sources: list[Dataset], algorithm: str, version: str, description: str
) -> Segmentation:
    segment = SegmentDescription(
        segment_number=1,
        segment_label=LABEL,
        segmented_property_category=_CATEGORY,
        segmented_property_type=_TYPE,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=_long_string(algorithm), version=_long_string(version), family=codes.DCM.ArtificialIntelligence
        ),
        anatomic_regions=[CodedConcept(*REGION)],
        display_color=_COLOUR,
    )
    return Segmentation(
        source_images=sources,
        pixel_array=frames,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        series_instance_uid=generate_uid(),
        series_number=_series_number(sources[0]),
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="lung_infection_ct_segmentation",
        manufacturer_model_name=_long_string(algorithm),
        software_versions=_long_string(version),
        device_serial_number="0",  # must not be empty; software has none
        omit_empty_frames=bool(frames.any()),  # a SEG without frames is none
        content_label="LUNG_INFECTION",
        content_description=_long_string(description),
        series_description=_long_string(description),
    )


def _series_number(source: Dataset) -> int:
    found = min(max(int(get_number(source, "SeriesNumber") or 0), 0), _HIGHEST_NUMBER)
    return found + 1000 if found <= _HIGHEST_NUMBER - 1000 else found - 1000


def _long_string(words: str) -> str:
    """Words as a DICOM LO value: no backslash, no line breaks, at most 64 characters."""
    return " ".join(words.replace("\\", "/").split())[:_LONG_STRING]


def _read_sources(scan: Scan) -> list[Dataset]:
    """Headers of the source files: all of the first, of the others only what a frame refers to."""
    try:
        with scan.files[0].open("rb") as stream:
            first = read_header(stream)
    except UNREADABLE_FILE as error:
        found = f"{scan.files[0].name}: cannot be read again for the DICOM SEG ({error})"
        raise UserError(f"{found}; {_REMEDY}") from None
    sources = [first, *map(copy, scan.headers[1:])]
    for file, source in zip(scan.files, sources, strict=True):
        _check_source(file, source, multi_frame="PerFrameFunctionalGroupsSequence" in first)
    _check_identity(scan, sources)
    _mend(sources, scan)
    return sources


def _check_identity(scan: Scan, sources: list[Dataset]) -> None:
    """Refuse slices that a reference cannot tell apart, or that it cannot name together."""
    instances, series = ({str(one[keyword].value) for one in sources} for keyword in ("SOPInstanceUID", _SERIES))
    if len(instances) < len(sources):
        found = f"duplicate SOPInstanceUID ({len(sources)} slices, {len(instances)} distinct)"
    elif len(series) > 1:
        found = f"{len(series)} {_SERIES} in {len(sources)} slices"
    else:
        return
    raise UserError(f"{scan.path.name}: no DICOM SEG can refer to these slices: {found}; {_REMEDY}")


def _check_source(file: Path, source: Dataset, multi_frame: bool) -> None:
    needed = IDENTITY if multi_frame else [*IDENTITY, "ImagePositionPatient", "ImageOrientationPatient"]
    missing = [keyword for keyword in needed if not get_text(source, keyword)]
    if not multi_frame and get_numbers(source, "PixelSpacing", 2) is None:
        missing.append("PixelSpacing")
    if missing:
        raise UserError(f"{file.name}: {', '.join(missing)} missing, which a DICOM SEG must repeat; {_REMEDY}")


def _mend(sources: list[Dataset], scan: Scan) -> None:
    """Make headers uniform where the standard lets them vary and highdicom does not.

    Attributes that may be empty become so where they are absent or invalid. Orientations, equal
    within rounding, become those of the first. SpacingBetweenSlices, which scanners fill in at
    will, gives way to what the positions say.
    """
    first = sources[0]
    _mend_character_set(first)
    for keyword, pattern in _MAY_BE_EMPTY.items():
        if not re.fullmatch(pattern, get_text(first, keyword)):
            setattr(first, keyword, "")
    if "PerFrameFunctionalGroupsSequence" in first:
        return
    first.pop("SpacingBetweenSlices", None)
    if get_number(first, "SliceThickness") is None:
        first.SliceThickness = scan.spacing[2]
    for source in sources[1:]:
        source.ImageOrientationPatient = first.ImageOrientationPatient


def _mend_character_set(source: Dataset) -> None:
    """Write a header's character set in highdicom's form; the texts stay.

    An empty first value of several is the default repertoire (PS3.3 C.12.1.1.2), as all Japanese
    headers have it. What is no value of the standard, or no combination that highdicom writes,
    gives way to UTF-8.
    """
    stated = source.get("SpecificCharacterSet")
    values = [str(one) for one in stated] if isinstance(stated, MultiValue) else [str(stated or "")]
    if len(values) > 1:
        values[0] = values[0] or _DEFAULT_SET
    if values == [""]:
        source.pop("SpecificCharacterSet", None)
    elif set(values) <= _CHARACTER_SETS and all(v.startswith("ISO 2022") == (len(values) > 1) for v in values):
        source.SpecificCharacterSet = values
    else:
        source.decode()
        source.SpecificCharacterSet = _UTF8
