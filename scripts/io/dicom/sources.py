"""The headers that an object derived from a DICOM series repeats, made uniform."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from highdicom.enum import SpecificCharacterSetValues
from pydicom import Dataset
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.multival import MultiValue
from pydicom.valuerep import DA, TM

from ...errors import UserError
from ..volume import Scan
from .files import UNREADABLE, UNREADABLE_FILE, read_header
from .header import IDENTITY, get_number, get_numbers, get_text

REMEDY = "expected: DICOM files with complete headers; the other results do not need them"
_MAY_BE_EMPTY = {  # and what their values match
    **dict.fromkeys(("PatientID", "PatientName", "AccessionNumber", "StudyID", "ReferringPhysicianName"), ".+"),
    **dict.fromkeys(("PatientBirthDate", "StudyDate"), r"\d{8}"),
    "PatientSex": "[MFO]",
    "StudyTime": r"\d{2,6}(\.\d{1,6})?",
}
_PARSERS = {"DA": DA, "TM": TM}  # which know the calendar
_IDENTIFIERS = ("LO", "SH")  # types of what names a patient or a study, repeated as it is
_SERIES = "SeriesInstanceUID"
_CHARACTER_SETS = {one.value for one in SpecificCharacterSetValues} - {"ISO 2022 IR 58"}  # highdicom combines that not
_DEFAULT_SET, _UTF8 = "ISO 2022 IR 6", "ISO_IR 192"


@dataclass(frozen=True)
class Sources:
    """A scan's DICOM files, as what is derived from them refers to them.

    Attributes:
        scan: what `read_dicom` returned.
        headers: of the first file all attributes, of others what a reference needs.
    """

    scan: Scan
    headers: list[Dataset]

    @property
    def first(self) -> Dataset:
        """The header that names patient and study."""
        return self.headers[0]

    def image(self, k: int) -> tuple[str, int | None]:
        """Return the SOPInstanceUID of a stored slice, and its frame from 1 in a multi-frame file.

        Raises:
            UserError: if the scan comes from several multi-frame files.
        """
        source = self.scan.source(k)
        if source is None:
            count = len(self.headers)
            raise UserError(f"{self.scan.path.name}: {count} multi-frame files; expected for DICOM results: one")
        file, frame = source
        return str(self.headers[file].SOPInstanceUID), frame

    @contextmanager
    def refused(self, kind: str) -> Iterator[None]:
        """Raise `UserError` where a block meets headers that no object of a kind can repeat."""
        try:
            yield
        except UNREADABLE as error:
            found = f"no DICOM {kind} can refer to this series ({' '.join(str(error).split())})"
            raise UserError(f"{self.scan.path.name}: {found}; {REMEDY}") from None


def read_sources(scan: Scan) -> Sources:
    """Read the first of a scan's files again; of the others the scan holds what is needed.

    Raises:
        ValueError: if the scan has no DICOM files.
        UserError: if a file cannot be read again, or lacks what derived objects must repeat.
    """
    if not scan.files:
        raise ValueError(f"{scan.path} ({scan.kind}) has no DICOM files that an object could refer to")
    try:
        with scan.files[0].open("rb") as stream:
            first = read_header(stream)
    except UNREADABLE_FILE as error:
        found = f"{scan.files[0].name}: cannot be read again for DICOM results ({error})"
        raise UserError(f"{found}; {REMEDY}") from None
    _drop_unreadable(first)
    sources = [first, *map(copy, scan.headers[1:])]
    for file, source in zip(scan.files, sources, strict=True):
        _check_source(file, source, multi_frame="PerFrameFunctionalGroupsSequence" in first)
    _check_identity(scan, sources)
    _mend(sources, scan)
    return Sources(scan, sources)


def _drop_unreadable(header: Dataset) -> None:
    """Take attributes out whose bytes are no value, or one of another type than they have."""
    for tag in list(header.keys()):
        try:
            found = header[tag].VR
            damaged = dictionary_has_tag(tag) and found not in dictionary_VR(tag).split(" or ")
        except UNREADABLE_FILE:
            damaged = True
        if damaged:
            del header[tag]


def _check_identity(scan: Scan, sources: list[Dataset]) -> None:
    """Refuse slices that a reference cannot tell apart, or that it cannot name together."""
    instances, series = ({str(one[keyword].value) for one in sources} for keyword in ("SOPInstanceUID", _SERIES))
    if len(instances) < len(sources):
        found = f"duplicate SOPInstanceUID ({len(sources)} slices, {len(instances)} distinct)"
    elif len(series) > 1:
        found = f"{len(series)} {_SERIES} in {len(sources)} slices"
    else:
        return
    raise UserError(f"{scan.path.name}: no DICOM object can refer to these slices: {found}; {REMEDY}")


def _check_source(file: Path, source: Dataset, multi_frame: bool) -> None:
    needed = IDENTITY if multi_frame else [*IDENTITY, "ImagePositionPatient", "ImageOrientationPatient"]
    missing = [keyword for keyword in needed if not get_text(source, keyword)]
    if not multi_frame and get_numbers(source, "PixelSpacing", 2) is None:
        missing.append("PixelSpacing")
    if missing:
        raise UserError(f"{file.name}: {', '.join(missing)} missing, which DICOM results must repeat; {REMEDY}")


def _mend(sources: list[Dataset], scan: Scan) -> None:
    """Make headers uniform where the standard lets them vary and highdicom does not.

    Attributes that may be empty become so where they are absent or invalid; of several values of a
    name, a date, a time or a code, where one is allowed, the first counts. Orientations, equal
    within rounding, become those of the first; what frames repeat becomes shared.
    SpacingBetweenSlices, which scanners fill in at will, gives way to what the positions say.
    """
    first = sources[0]
    _mend_character_set(first)
    for keyword, pattern in _MAY_BE_EMPTY.items():
        _mend_value(first, keyword, pattern)
    if "PerFrameFunctionalGroupsSequence" in first:
        _share_geometry(first, scan)
        return
    first.pop("SpacingBetweenSlices", None)
    _mend_thickness(first, scan)
    for source in sources[1:]:
        source.ImageOrientationPatient = first.ImageOrientationPatient


def _share_geometry(source: Dataset, scan: Scan) -> None:
    """Put what every frame repeats into the shared group, where highdicom looks for it.

    The standard leaves the place of both to the scanner (PS3.3 C.7.6.16).
    """
    frames = source.PerFrameFunctionalGroupsSequence
    source.SharedFunctionalGroupsSequence = source.get("SharedFunctionalGroupsSequence") or [Dataset()]
    shared = source.SharedFunctionalGroupsSequence[0]
    for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        first = frames[0].get(keyword)
        if keyword not in shared and first and all(frame.get(keyword) == first for frame in frames):
            setattr(shared, keyword, first)
    for measures in shared.get("PixelMeasuresSequence") or []:
        _mend_thickness(measures, scan)


def _mend_thickness(measures: Dataset, scan: Scan) -> None:
    """Let the distance between slices stand for a SliceThickness that is none."""
    if (get_number(measures, "SliceThickness") or 0) <= 0:
        measures.SliceThickness = scan.spacing[2]


def _mend_value(source: Dataset, keyword: str, pattern: str) -> None:
    """Leave one valid value of an attribute, or none."""
    vr = dictionary_VR(keyword)
    several = source.get(keyword)
    with disable_value_validation():  # its warnings would show the values
        if isinstance(several, MultiValue) and vr not in _IDENTIFIERS:
            source[keyword].value = next(iter(several), "")
        text = get_text(source, keyword)
        try:
            valid = bool(re.fullmatch(pattern, text) and _PARSERS.get(vr, str)(text))
        except ValueError:
            valid = False
        if not valid:
            setattr(source, keyword, "")


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
