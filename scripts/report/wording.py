"""Words of the reports for people: numbers with units, names of fields, sentences."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import gt, lt
from typing import Any

from ..messages import beside, counted
from .lesion_free import FEWEST, PERCENT, WITHIN
from .severity import MUCH_OUTSIDE_PERCENT
from .severity import grade as grade_of

NOT_STATED = "not stated"
TITLE = "Opacities on chest CT"
LEGEND = (
    "The axial slice with the lesion's largest area, the lesion between magenta corners, all outlines orange. The "
    "patient's right is at the left, the front at the top; positions are towards the patient's left (L) or right (R), "
    "back (P) or front (A), head (S) or feet (I)."
)
"""What the pictures of lesions show."""
PARTS = {"total": "both lungs", "right": "right lung", "left": "left lung"}
"""Names of the parts that `measures["lungs"]` holds."""
_GAP = "\N{NO-BREAK SPACE}"  # between a number and its unit
LABELS = {
    "distance": "distance from the training data",
    "file_count": "files",
    "kvp": "tube voltage in kV",
    "least_slice_share": "minimum positive fraction of a slice",
    "least_views_agree_percent": "lowest usual agreement of mirrored views in percent",
    "limit": "threshold",
    "metadata_sha256": "SHA-256 of their metadata",
    "series_id": "series ID",
    "shape_voxels": "shape in voxels",
    "slice_thickness_mm": "slice thickness in mm",
    "smallest_lesion_mm3": "smallest lesion in mm³",
    "spacing_mm": "voxel size in mm",
    "test_time_flips": "test-time augmentation by flips",
    "threshold": "decision threshold",
    "through_plane_mm": "mean over neighbouring slices, standard deviation in mm",
    "weights_sha256": "SHA-256 of the weights",
}
"""Names of fields of report.json that are not words already."""


def label(name: str) -> str:
    """Name a field of report.json in words."""
    return LABELS.get(name, name.replace("_", " "))


def words(value: Any) -> str:
    """Write a value of report.json as text."""
    if isinstance(value, Mapping):
        return "; ".join(f"{label(name)}: {words(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not known" if value is None else str(value)


def percent(value: float | None, digits: int = 1) -> str:
    """Write a percentage with so many decimals, or more.

    It is not rounded to nothing, to all, or across the limit of a grade.
    """
    if value is None:
        return NOT_STATED
    if digits == 1 and 0 < value < 0.1:
        return f"below 0.1{_GAP}%"
    if digits == 1 and 99.95 <= value < 100:
        return f"above 99.9{_GAP}%"
    return f"{value:.{max(digits, digits_within(value, grade_of))}f}{_GAP}%"


def digits_within(value: float, kind: Callable[[float], object]) -> int:
    """Return with how many decimals a number, rounded, is still of its kind: one, or more."""
    digits = 1
    while kind(float(f"{value:.{digits}f}")) != kind(value):
        digits += 1
    return digits


def much_outside(infection: Mapping[str, Any]) -> str | None:
    """Say how much of the infection lies outside of the lungs, where that is much; else None."""
    outside = infection.get("outside_lungs_percent") or 0.0
    if outside < MUCH_OUTSIDE_PERCENT:
        return None
    return f"{percent(outside)} of the opacities lie outside of the lungs as segmented"


def certain(measures: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out percentages of lungs and lobes that are lower bounds, for who cannot say so."""
    if not much_outside(measures["infection"]):
        return measures
    found = {**measures, "lungs": {**measures["lungs"], **_unknown(measures["lungs"], PARTS)}}
    if lobes := measures.get("lobes"):  # reports of earlier versions have no such key
        found["lobes"] = {**lobes, "parts": {**lobes["parts"], **_unknown(lobes["parts"], lobes["parts"])}}
    return found


def _unknown(parts: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: {**parts[name], "infected_percent": None} for name in names if parts[name]}


def infected(part: Mapping[str, Any], infection: Mapping[str, Any]) -> str:
    """Write the infected percentage of a lung or a lobe, as far as it is known.

    Where much of the infection lies outside of the lungs, they may lack what is infected.
    """
    value = part["infected_percent"]
    if value is None or not much_outside(infection):
        return percent(value)
    least = math.floor(10 * value) / 10
    return f"at least {least:.1f}{_GAP}%" if least else NOT_STATED  # at least nothing says nothing


def size(found: Mapping[str, Any], name: str, key: str = "") -> str:
    """Write the size of `name` in ml where `found` holds it, else in voxels.

    `key` is that of the volume, `name`_ml unless given.
    """
    volume = found.get(key or f"{name}_ml")
    if volume is not None:
        return ml(volume)
    voxels = found[f"{name}_voxels"]
    return f"{voxels:,}{_GAP}voxel{'' if voxels == 1 else 's'}"


def ml(volume: float, digits: int = 1) -> str:
    """Write a volume in ml with so many decimals, or more; small ones are not rounded to 0."""
    if digits == 1 and 0 < volume < 0.01:
        return f"below 0.01{_GAP}ml"
    return f"{volume:,.{max(digits, 2 if volume < 10 else 1)}f}{_GAP}ml"


def grade(measures: Mapping[str, Any], part: str) -> str:
    """Write the severity grade of both lungs ("total") or of one."""
    found = (measures["severity"]["grades"] or {}).get(part)
    return NOT_STATED if found is None else f"{found['grade_of_5']} of 5, {found['category']}"


def finding(measures: Mapping[str, Any]) -> str:
    """Say in one sentence what was found."""
    infection, lungs, free = measures["infection"], measures["lungs"], measures["lesion_free"]
    affected, count = infection["affected_slice_count"], infection["slice_count"]
    slices = counted(count, "slice")
    if not infection["present"]:
        return f"Nothing was outlined in {slices}."
    where = f"in {affected} of {slices}" if affected else f"in none of {slices} enough to count"
    text = f"Opacities of {size(infection, 'infection')} were outlined {where}"
    known = NOT_STATED if lungs["reason"] is not None else infected(lungs["total"], infection)
    if known == NOT_STATED:
        text += f", {WITHIN}" if free and free["within"] else ""
        return f"{text}; percentage of the lungs and severity are not stated."
    text += f": {known} of {'the scanned part of the lungs' if lungs['cuts'] else 'the lungs'}"
    if free and free["within"]:
        return f"{text}, {WITHIN}."
    graded = grade(measures, "total")
    return f"{text}, severity {NOT_STATED if graded == NOT_STATED else f'grade {graded}'}."


def key_numbers(measures: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the numbers of the first screen: name, value, what to know about it (may be empty)."""
    infection, lungs, free = measures["infection"], measures["lungs"], measures["lesion_free"]
    slices = f"in {infection['affected_slice_count']} of {infection['slice_count']} slices"
    found = [("Opacities", size(infection, "infection"), slices)]
    if free:
        median = f"median {amount(free, 'median')}, {free['volumes']} scans"
        found.append(("On scans without infection", f"at most {amount(free, 'largest')}", median))
    if lungs["reason"] is None:
        scanned = "of the part scanned" if lungs["cuts"] else ""
        for part, name in PARTS.items():
            found.append((f"Percentage of {name}", infected(lungs[part], infection), scanned))
        within = "within scans without infection" if free and free["within"] else "see below"
        found.append(("Severity, both lungs", grade(measures, "total"), within))
    else:
        found.append(("Percentage of the lungs, severity", NOT_STATED, "see lungs and severity"))
    lesions = measures["lesions"]
    largest = f"largest {size(lesions, 'largest')}" if lesions["lesion_count"] else "nothing outlined"
    return [*found, ("Lesions", str(lesions["lesion_count"]), largest)]


def lung_remarks(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is to be known about percentages, grades and the outline, in sentences."""
    measures = report["measures"]
    infection, lungs, removed = measures["infection"], measures["lungs"], measures["removed"]
    if lungs["reason"] is not None:
        yield f"Percentages and grades are not stated: {lungs['reason']}."
    else:
        outside = infection["outside_lungs_percent"]
        of = f" ({beside(outside, MUCH_OUTSIDE_PERCENT, lt, percent, 1)[0]} of all)" if outside else ""
        yield f"Opacities outside of the lungs as segmented, in no percentage: {size(infection, 'outside_lungs')}{of}."
        if reason := measures["severity"]["reason"]:
            yield f"Grades are not stated: {reason}."
    if free := measures["lesion_free"]:
        yield " ".join(without_infection(free))
    of_body, of_lungs = size(removed, "outside_body"), size(removed, "outside_lungs")
    text = f"Marks that were removed from the mask: {of_body} outside of the body, {of_lungs} outside of the lungs."
    if reason := removed["reason"]:
        text += f" What lies outside of the lungs was not removed: {reason}."
    yield text
    if (agree := infection.get("views_agree_percent")) is not None:
        yield _agreement(agree, report["model"]["operating_point"].get("least_views_agree_percent"))


def _agreement(found: float, least: float | None) -> str:
    same, usual = (percent(found), "") if least is None else beside(found, least, lt, percent, 1)
    text = f"Mirrored views of the scan mark the same pixels for {same} of what any of them marks."
    if least is None:
        return text
    sure = "unsure" if found < least else "as sure as usual"
    return f"{text} The border of the opacities is {sure}: from {usual} on is usual."


def severity_remark(measures: Mapping[str, Any]) -> str:
    """Say where the grades come from and what they are not."""
    severity = measures["severity"]
    return f"{severity['caution']} Scale: {severity['scale']}. {severity['source']}"


def hu_range(one: Mapping[str, Any]) -> str:
    """Write the limits of a density class."""
    low, high = one["from_hu"], one["below_hu"]
    if low is None:
        return f"below {high}"
    return f"{low} and above" if high is None else f"{low} to below {high}"


def by_whom(report: Mapping[str, Any]) -> str:
    """Say what made the outlines, when, and who is to check them."""
    when = report["created"].replace("T", " ").replace("+00:00", " UTC")
    return f"Outlined by a neural network, {when}; to be checked by a radiologist."


def warnings_title(count: int) -> str:
    """Head the list of warnings."""
    return f"{counted(count, 'warning')}: check before using the numbers"


def no_others(warned: bool) -> str:
    """Say that the quality control found nothing, or nothing beside its warnings."""
    return "No others than the warnings above." if warned else "None."


def amount(free: Mapping[str, Any], name: str) -> str:
    """Write a value of `measures["lesion_free"]` with its unit."""
    return _writer(free)(free[name], 1)


def _writer(free: Mapping[str, Any]) -> Callable[[float, int], str]:
    return percent if free["unit"] == PERCENT else ml


def without_infection(free: Mapping[str, Any]) -> list[str]:
    """Say in sentences what is marked on scans without infection, and what that means here."""
    of = " of the lungs' volume, all marks counted" if free["unit"] == PERCENT else ""
    count = free["volumes"]
    scans = f"{counted(count, 'scan')} without infection"
    found = f"median {amount(free, 'median')}, at most {amount(free, 'largest')}{of}"
    which = f"median, as there are fewer than {FEWEST}" if count < FEWEST else "95th percentile"
    value, limit = beside(free["value"], free["limit"], gt, _writer(free), 1)
    sentences = [f"On {scans}, unseen in training, was marked: {found}. On this scan: {value}."]
    sentences.append(f"The limit is {limit}, the {which}.")
    if free["within"]:
        sentences.append("An amount within it is no proof of infection, and none against it: look at the pictures.")
    return sentences
