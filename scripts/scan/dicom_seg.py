"""The mask as a DICOM Segmentation object, on the slices that it was found on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from highdicom.color import CIELabColor
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from scripts.errors import UserError
from scripts.files import write_atomic
from scripts.scan.dicom_geometry import stack_slices
from scripts.scan.dicom_header import UNREADABLE, UNREADABLE_FILE, number, numbers, read_slices, text
from scripts.scan.volume import Scan

LABEL = "COVID-19 infection"
# PS3.16: category from CID 7150, type from CID 7159 (lesion segmentation types), region from CID 4. A disease such as
# pneumonia is no type of segment there; what is outlined is the altered tissue.
_CATEGORY = CodedConcept("49755003", "SCT", "Morphologically Altered Structure")
_TYPE = CodedConcept("409774005", "SCT", "Inflammation")
_COLOUR = CIELabColor.from_rgb(255, 159, 28)  # the preview's
_GEOMETRY = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns"]
_IDENTITY = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"]
_MAY_BE_EMPTY: dict[str, Callable[[str], object]] = {
    "PatientID": str,
    "PatientName": str,
    "PatientBirthDate": re.compile(r"\d{8}").fullmatch,
    "PatientSex": re.compile("[MFO]").fullmatch,
    "AccessionNumber": str,
    "StudyID": str,
    "StudyDate": re.compile(r"\d{8}").fullmatch,
    "StudyTime": re.compile(r"\d{2,6}(\.\d{1,6})?").fullmatch,
    "ReferringPhysicianName": str,
}
_REMEDY = "accepted: DICOM files with complete headers; the other results do not need them"
_LONG_STRING = 64  # characters in a DICOM LO value


def write_dicom_seg(
    mask: NDArray[np.uint8], scan: Scan, path: Path, *, algorithm: str, version: str, description: str
) -> Path:
    """Writes a binary DICOM SEG (PS3.3 A.51) with one segment, a new series in the scan's study.

    Slices with infection become frames that name their source slice and repeat its position; the patient's and the
    study's attributes are those of the scan, as a SEG must have them. Of an empty mask every slice is written as an
    empty frame, because a SEG needs at least one. Bound in memory: headers, and one bit a voxel of the frames.

    Args:
        mask: 0 or 1, (X, Y, Z), in the scan's stored axes.
        scan: what `read_dicom` returned; its files must still be there.
        path: the file to write.
        algorithm: name of the model.
        version: version of the model or the software.
        description: of the series, at most 64 characters are kept.

    Returns:
        The path written.

    Raises:
        ValueError: if the mask has not the scan's shape or holds other values than 0 and 1.
        UserError: if the scan's files lack what a SEG must repeat of them.
    """
    if mask.shape != scan.values.shape or mask.max(initial=0) > 1:
        raise ValueError(f"mask {mask.shape}, highest {mask.max()}; accepted: 0 and 1 in {scan.values.shape}")
    if not scan.files:
        raise ValueError(f"{scan.path} ({scan.kind}) has no DICOM files that a SEG could refer to")
    sources = _read_sources(scan)
    frames = mask.transpose(2, 1, 0)  # a view
    if len(sources) != len(frames):
        frames = _in_order_of_frames(frames, scan)
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
        anatomic_regions=[codes.SCT.Lung],
        display_color=_COLOUR,
    )
    return Segmentation(
        source_images=sources,
        pixel_array=frames,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        series_instance_uid=generate_uid(),
        series_number=max(int(number(sources[0], "SeriesNumber") or 0), 0) + 1000,
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


def _long_string(words: str) -> str:
    """Words as a DICOM LO value: no backslash, no line breaks, at most 64 characters."""
    return " ".join(words.replace("\\", "/").split())[:_LONG_STRING]


def _read_sources(scan: Scan) -> list[Dataset]:
    """Headers of the source files: all of the first, of the others only what a frame refers to."""
    sources: list[Dataset] = []
    for file in scan.files:
        try:
            tags: list[Any] | None = [*_GEOMETRY, *_IDENTITY] if sources else None
            sources.append(dcmread(file, stop_before_pixels=True, specific_tags=tags))
        except UNREADABLE_FILE as error:
            raise UserError(f"{file.name}: cannot be read again for the DICOM SEG ({error}); {_REMEDY}") from None
        _check_source(file, sources[-1], multi_frame="PerFrameFunctionalGroupsSequence" in sources[0])
    _mend(sources, scan)
    return sources


def _check_source(file: Path, source: Dataset, multi_frame: bool) -> None:
    needed = _IDENTITY if multi_frame else [*_IDENTITY, "ImagePositionPatient", "ImageOrientationPatient"]
    missing = [keyword for keyword in needed if not text(source, keyword)]
    if not multi_frame and numbers(source, "PixelSpacing", 2) is None:
        missing.append("PixelSpacing")
    if missing:
        raise UserError(f"{file.name}: {', '.join(missing)} missing, which a DICOM SEG must repeat; {_REMEDY}")


def _mend(sources: list[Dataset], scan: Scan) -> None:
    """Makes headers uniform where the standard lets them vary and highdicom does not.

    Attributes that may be empty become so where they are absent or invalid. Orientations, which the reader found
    equal within rounding, become those of the first. SpacingBetweenSlices, which scanners fill in at will, gives
    way to what the positions say.
    """
    first = sources[0]
    for keyword, is_valid in _MAY_BE_EMPTY.items():
        if not is_valid(text(first, keyword)):
            setattr(first, keyword, "")
    if "PerFrameFunctionalGroupsSequence" in first:
        return
    first.pop("SpacingBetweenSlices", None)
    if number(first, "SliceThickness") is None:
        first.SliceThickness = scan.spacing[2]
    for source in sources[1:]:
        source.ImageOrientationPatient = first.ImageOrientationPatient


def _in_order_of_frames(planes: NDArray[np.uint8], scan: Scan) -> NDArray[np.uint8]:
    """Planes of a multi-frame file, sorted along the normal, in the order of its frames; others stay empty."""
    slices = read_slices(scan.files[0])
    frames = np.zeros((len(slices), *planes.shape[1:]), np.uint8)
    for k, plane in enumerate(stack_slices(slices).planes):
        frames[plane[0].frame] = planes[k]
    return frames
