"""Whether the slices of one DICOM series were made together, and what is left out of it.

A SeriesInstanceUID promises less than a volume: a series may hold several acquisitions, cardiac
phases or reconstructions, images of other frames of reference, scout views and screen captures
(PS3.3 A.1.2, C.7.3, C.7.4.1).
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...messages import some
from ..volume import Note
from .header import Slice, get_number, get_text

_SAME_PLACE = 0.01  # mm
_SAME_NUMBER = 0.05  # mm, kV or a count; nearer numbers differ by how they were rounded
_SHORTEST_STEP = 0.6  # of the usual distance from slice to slice; one between two others halves it at least
_SHOWN = 4

_APART = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID")
"""Attributes that differ between images whose positions cannot be compared."""
_TRAITS = {
    "SeriesNumber": ("SeriesNumber",),
    "AcquisitionNumber": ("AcquisitionNumber", "FrameAcquisitionNumber"),
    "TemporalPositionIdentifier": ("TemporalPositionIdentifier", "TemporalPositionIndex"),
    **{one: (one,) for one in ("NominalPercentageOfCardiacPhase", "EchoNumbers", "StackID", "ContrastBolusAgent")},
    **{one: (one,) for one in ("PatientPosition", "KVP", "ConvolutionKernel", "SliceThickness")},
    "ImageType": ("ImageType", "FrameType"),
}
"""Attributes that tell images of one place apart; the second name is that of multi-frame files."""


@dataclass(frozen=True)
class Part:
    """Slices of a series that make one volume."""

    slices: list[Slice]
    label: str = ""  # what tells them from the rest, "AcquisitionNumber 2"; empty for a whole series
    keywords: tuple[str, ...] = ()  # the attributes in the label


def set_aside(slices: list[Slice]) -> tuple[list[Slice], list[Note]]:
    """Leave out of a CT series what is no slice: other objects, colour images, scout views.

    If nothing would be left, all of them are kept. Each kind that is left out gets a note.
    """
    notes = []
    images = [one for one in slices if one.ct and not _is_screen(one)]
    others = [one for one in slices if not one.ct or _is_screen(one)]
    if others and images:
        notes.append(Note("objects_left_out", describe_objects(others, " of the series"), "repair"))
    images = images or [one for one in slices if one.ct] or slices
    axial = [one for one in images if not one.localizer]
    if axial and len(axial) < len(images):
        names = _files([one for one in images if one.localizer])
        words = f"{len(images) - len(axial)} localizer (scout) image(s) of the series were left out: {names}."
        notes.append(Note("localizer_dropped", words, "repair"))
    return axial or images, notes


def describe_objects(objects: list[Slice], where: str) -> str:
    """One sentence that counts objects which are no CT slices and names files and kinds."""
    kinds = Counter(_kind(one) for one in objects)
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())[:_SHOWN])
    one = len(objects) == 1
    count = f"{len(objects)} object{'' if one else 's'}{where} that {'is' if one else 'are'} no CT slice"
    return f"{count} {'was' if one else 'were'} left out ({listed}): {_files(objects)}."


def _kind(one: Slice) -> str:
    return "colour or screen image" if one.ct else str(one.header.SOPClassUID.name)[:64]


def _files(slices: list[Slice]) -> str:
    return some(list({one.path.name for one in slices}))


def _is_screen(one: Slice) -> bool:
    """Return whether an image is in colour or a console's picture without a place."""
    colour = get_text(one.header, "PhotometricInterpretation")
    if (get_number(one.header, "SamplesPerPixel") or 1) != 1 or (colour and not colour.startswith("MONOCHROME")):
        return True
    return "SECONDARY" in _image_type(one) and (one.position is None or one.orientation is None)


def _image_type(one: Slice) -> list[str]:
    return (get_text(one.header, "FrameType") or get_text(one.header, "ImageType")).upper().split("\\")


def separate(slices: list[Slice]) -> tuple[list[Part], list[Note]]:
    """Separate the slices of a series that were not made together; notes say what was joined.

    Slices of another patient, study or frame of reference are always parts of their own. Those of
    another acquisition, time point, kernel, ... are so where they overlap along the normal: two
    passes over one place. Acquisitions one above the other, or one for each slice, are one scan, as
    step-and-shoot scanners write it. So are slices that leave an attribute out, or have another
    ImageType, where they fill the gaps of the others.
    """
    parts = [Part(slices)]
    for keyword in _APART:
        parts = [fine for part in parts for fine in _split(part, keyword, _values(part.slices, (keyword,)))]
    notes = []
    for keyword, names in _TRAITS.items():
        fine = [one for part in parts for one in _split(part, keyword, _values(part.slices, names))]
        if len(fine) == len(parts) == 1:
            notes += _joined(keyword, _values(slices, names))
        parts = fine
    return parts, notes if len(parts) == 1 else []


def _values(slices: list[Slice], keywords: Sequence[str]) -> list[str]:
    if "ImageType" in keywords:  # the first value changes where single slices were compressed or corrected
        return ["\\".join(_image_type(one)[1:]) for one in slices]
    values = [next(filter(None, (get_text(one.header, keyword) for keyword in keywords)), "") for one in slices]
    return values if keywords[0] in _APART else _without_rounding(values)


def _without_rounding(values: list[str]) -> list[str]:
    """Return one text for numbers that differ by rounding or form ("1.25", "1.2500001")."""
    found = {value: _as_number(value) for value in set(values)}
    same: dict[str, str] = {}
    before = -np.inf
    name = ""
    for value in sorted((value for value in found if found[value] is not None), key=_in_order):
        place = found[value] or 0.0
        name = name if place - before <= _SAME_NUMBER else f"{place:.10g}"
        same[value], before = name, place
    return [same.get(value, value) for value in values]


def _as_number(value: str) -> float | None:
    try:
        found = float(value)
    except ValueError:
        return None
    return found if np.isfinite(found) else None


def _in_order(value: str) -> tuple[bool, float, str]:
    """Key that sorts numbers by their size, before all other texts."""
    found = _as_number(value)
    return found is None, found or 0.0, value


def _split(part: Part, keyword: str, values: list[str]) -> list[Part]:
    groups: dict[str, list[Slice]] = defaultdict(list)
    for one, value in zip(part.slices, values, strict=True):
        groups[value].append(one)
    if len(groups) == 1 or not _are_apart(part.slices, groups, keyword):
        return [part]
    parts = []
    for rank, value in enumerate(sorted(groups, key=_in_order)):
        shown = f"no. {rank + 1}" if keyword in _APART else value[:40] or "absent"  # who and when is nobody's business
        label = f"{part.label}, {keyword} {shown}".removeprefix(", ")
        parts.append(Part(groups[value], label, (*part.keywords, keyword)))
    return parts


def _are_apart(slices: list[Slice], groups: dict[str, list[Slice]], keyword: str) -> bool:
    """Whether slices that differ in an attribute were made apart from each other.

    An absent value is no other value, and values of ImageType are appended to single slices; so
    these tell nothing where the slices fill the gaps of the others.
    """
    said = len(groups) - ("" in groups)
    if keyword in _APART:
        return said > 1
    if not _overlap(slices, list(groups.values())):
        return False
    return not ((said == 1 or keyword == "ImageType") and _complete_each_other(slices, list(groups.values())))


def _complete_each_other(slices: list[Slice], groups: list[list[Slice]]) -> bool:
    heights = _heights(slices)
    if heights is None:
        return False
    ordered = sorted(slices, key=lambda one: heights[id(one)])
    steps = np.diff([heights[id(one)] for one in ordered])
    ranks = {id(one): rank for rank, one in enumerate(ordered)}
    apart = [np.median(np.diff(sorted(ranks[id(one)] for one in group))) for group in groups if len(group) > 1]
    return bool(steps.min() >= _SHORTEST_STEP * np.median(steps) and min(apart, default=1) < 2)


def _overlap(slices: list[Slice], groups: list[list[Slice]]) -> bool:
    """Whether a group has slices at or between another's places; if unknown, has several."""
    heights = _heights(slices)
    if heights is None:
        return any(len(group) > 1 for group in groups)
    ranges = sorted((min(of), max(of)) for of in ([heights[id(one)] for one in group] for group in groups))
    if all(high - low <= _SAME_PLACE for low, high in ranges):
        return False  # one for each slice; two slices at one place are looked at when they are read
    highest = np.maximum.accumulate([high for _, high in ranges])
    return any(low <= before + _SAME_PLACE for before, (low, _) in zip(highest, ranges[1:], strict=False))


def _heights(slices: list[Slice]) -> dict[int, float] | None:
    """Place along the normal of each slice in mm; None where a slice does not say."""
    first = next((one.orientation for one in slices if one.orientation), None)
    normal = np.cross(first[:3], first[3:]) if first else np.array([0.0, 0.0, 1.0])
    if all(one.position is not None for one in slices):
        return {id(one): float(np.dot(one.position, normal)) for one in slices if one.position}
    if all(one.location is not None for one in slices):
        return {id(one): one.location for one in slices if one.location is not None}
    return None


def _joined(keyword: str, values: list[str]) -> list[Note]:
    counts = Counter(values)
    if len(counts) == 1 or max(counts.values()) == 1 or (counts[""] and len(counts) == 2):
        return []
    listed = [f"{value or 'absent'}: {counts[value]}" for value in sorted(counts, key=_in_order)]
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    words = (
        f"The series holds slices with {len(counts)} values of {keyword}, none of them twice at one place "
        f"({', '.join(listed[:_SHOWN])} slices{more}); they were taken as one scan."
    )
    return [Note("acquisitions_joined", words, "assumption")]
