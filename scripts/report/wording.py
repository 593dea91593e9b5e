"""Words of the HTML report: numbers with units, names of fields, the finding."""

from collections.abc import Mapping
from typing import Any

from .lesion_free import FEWEST, PERCENT, WITHIN

NOT_STATED = "not stated"
_GAP = "\N{NO-BREAK SPACE}"  # between a number and its unit
LABELS = {
    "distance": "distance from the training data",
    "file_count": "files",
    "kvp": "tube voltage in kV",
    "least_slice_share": "minimum positive fraction of a slice",
    "least_views_agree_percent": "lowest usual agreement of mirrored views in percent",
    "limit": "threshold",
    "series_id": "series ID",
    "shape_voxels": "shape in voxels",
    "slice_thickness_mm": "slice thickness in mm",
    "smallest_lesion_mm3": "smallest lesion in mm³",
    "spacing_mm": "voxel size in mm",
    "test_time_flips": "test-time augmentation by flips",
    "threshold": "decision threshold",
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


def percent(value: float | None) -> str:
    """Write a percentage; small ones are not rounded to nothing."""
    if value is None:
        return NOT_STATED
    return f"below 0.1{_GAP}%" if 0 < value < 0.1 else f"{value:.1f}{_GAP}%"


def size(found: Mapping[str, Any], name: str, ml: str = "") -> str:
    """Write the size of `name` in ml where `found` holds it, else in voxels.

    `ml` is the key of the volume, `name`_ml unless given.
    """
    volume = found.get(ml or f"{name}_ml")
    return f"{found[f'{name}_voxels']:,}{_GAP}voxels" if volume is None else _volume(volume)


def _volume(ml: float) -> str:
    return f"below 0.01{_GAP}ml" if 0 < ml < 0.01 else f"{ml:,.{2 if ml < 10 else 1}f}{_GAP}ml"


def grade(measures: Mapping[str, Any], part: str) -> str:
    """Write the severity grade of both lungs ("total") or of one."""
    found = (measures["severity"]["grades"] or {}).get(part)
    return NOT_STATED if found is None else f"{found['grade_of_5']} of 5, {found['category']}"


def finding(measures: Mapping[str, Any]) -> str:
    """Say in one sentence what was found."""
    infection, lungs, free = measures["infection"], measures["lungs"], measures["lesion_free"]
    affected, count = infection["affected_slice_count"], infection["slice_count"]
    slices = f"{count} slice" + ("s" if count != 1 else "")
    if not infection["present"]:
        return f"Nothing was outlined in {slices}."
    where = f"in {affected} of {slices}" if affected else f"in none of {slices} enough to count"
    text = f"Opacities of {size(infection, 'infection')} were outlined {where}"
    if lungs["reason"] is not None:
        text += f", {WITHIN}" if free and free["within"] else ""
        return f"{text}; percentage of the lungs and severity are not stated."
    of = "the scanned part of the lungs" if lungs["cuts"] else "the lungs"
    text += f": {percent(lungs['total']['infected_percent'])} of {of}"
    if free and free["within"]:
        return f"{text}, {WITHIN}."
    graded = grade(measures, "total")
    return f"{text}, severity {NOT_STATED if graded == NOT_STATED else f'grade {graded}'}."


def amount(free: Mapping[str, Any], name: str) -> str:
    """Write a value of `measures["lesion_free"]` with its unit."""
    return percent(free[name]) if free["unit"] == PERCENT else _volume(free[name])


def without_infection(free: Mapping[str, Any]) -> list[str]:
    """Say in sentences what is marked on scans without infection, and what that means here."""
    of = " of the lungs' volume, all marks counted" if free["unit"] == PERCENT else ""
    count = free["volumes"]
    scans = f"{count} scan{'s' if count != 1 else ''} without infection"
    found = f"median {amount(free, 'median')}, at most {amount(free, 'largest')}{of}"
    which = f"median, as there are fewer than {FEWEST}" if count < FEWEST else "95th percentile"
    limit = f"The limit is {amount(free, 'limit')}, the {which}."
    sentences = [f"On {scans}, unseen in training, was marked: {found}. On this scan: {amount(free, 'value')}.", limit]
    if free["within"]:
        sentences.append("An amount within it is no proof of infection, and none against it: look at the pictures.")
    return sentences
