"""The parts of the HTML report that hold numbers: key numbers, lungs, density, lesions.

They are built as elements, so that every text is escaped when the page is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

Child = ET.Element | str
PARTS = {"total": "both lungs", "right": "right lung", "left": "left lung"}
NOT_STATED = "not stated"


def element(tag: str, *children: Child, css: str = "") -> ET.Element:
    """An element with text and elements in it.

    Args:
        tag: the element's name.
        *children: its content in order; text is escaped when it is written.
        css: its class.
    """
    made = ET.Element(tag, {"class": css} if css else {})
    for child in children:
        if isinstance(child, ET.Element):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + child
        else:
            made.text = (made.text or "") + child
    return made


def figures_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> ET.Element:
    """A table of numbers that scrolls by itself on a narrow screen."""
    head = element("thead", element("tr", *(element("th", name) for name in header)))
    body = element("tbody", *(element("tr", *(element("td", cell) for cell in row)) for row in rows))
    return element("div", element("table", head, body, css="figures"), css="wide")


def percent(share: float | None) -> str:
    """A share in words; small ones are not rounded to nothing."""
    if share is None:
        return NOT_STATED
    return "below 0.1 %" if 0 < share < 0.1 else f"{share:.1f} %"


def size(found: Mapping[str, Any], name: str) -> str:
    """A volume where it is known, else voxels.

    Args:
        found: holds the keys `name`_voxels and maybe `name`_ml.
        name: what the size is of.
    """
    if f"{name}_ml" not in found:
        return f"{found[f'{name}_voxels']:,} voxels"
    volume = found[f"{name}_ml"]
    return "below 0.01 ml" if 0 < volume < 0.01 else f"{volume:,.2f} ml" if volume < 10 else f"{volume:,.1f} ml"


def key_numbers(measures: Mapping[str, Any]) -> list[ET.Element]:
    """The metadata at the top: volume, shares, severity, lesions."""
    infection, lungs, lesions = measures["infection"], measures["lungs"], measures["lesions"]
    affected = f"in {infection['affected_slice_count']} of {infection['slice_count']} slices"
    metadata = [_metadata("Infection", size(infection, "infection"), affected)]
    if lungs["reason"] is None:
        of = "of the part scanned" if lungs["cuts"] else ""
        shares = {name: percent(lungs[part]["infected_percent"]) for part, name in PARTS.items()}
        metadata += [_metadata(f"Share of {name}", share, of) for name, share in shares.items()]
        metadata.append(_metadata("Severity, whole lung", _grade(measures, "total"), "graded by share; see below"))
    else:
        metadata.append(_metadata("Share of lung, severity", NOT_STATED, "see lungs and severity"))
    largest = f"largest {size(lesions, 'largest')}" if lesions["lesion_count"] else "nothing outlined"
    metadata.append(_metadata("Lesions", str(lesions["lesion_count"]), largest))
    return [element("div", *metadata, css="card")]


def _metadata(name: str, value: str, more: str = "") -> ET.Element:
    """One key number."""
    return element("div", element("small", name), element("b", value), element("small", more), css="card")


def _grade(measures: Mapping[str, Any], part: str) -> str:
    """The grade of a lung in words."""
    grade = (measures["severity"]["grades"] or {}).get(part)
    return NOT_STATED if grade is None else f"{grade['grade_of_5']} of 5, {grade['category']}"


def lungs_and_severity(measures: Mapping[str, Any]) -> list[ET.Element]:
    """Volume, infection, share and grade per lung, and what the grade is not."""
    lungs, severity, infection = (measures[name] for name in ("lungs", "severity", "infection"))
    if lungs["reason"] is not None:
        return [element("p", f"Shares and grades are not stated: {lungs['reason']}.")]
    rows = []
    for part, name in PARTS.items():
        sizes = (size(lungs[part], of) for of in ("lung", "infection"))
        rows.append((name, *sizes, percent(lungs[part]["infected_percent"]), _grade(measures, part)))
    outside = f"Infection outside of the lungs as segmented, in no share: {size(infection, 'outside_lungs')}"
    if infection["outside_lungs_percent"]:
        outside += f" ({percent(infection['outside_lungs_percent'])} of the infection)"
    return [
        figures_table(("", "volume", "infection inside", "share affected", "grade"), rows),
        element("p", f"{outside}."),
        element("p", f"Grades are not stated: {severity['reason']}.")
        if severity["reason"]
        else element("p", f"{severity['caution']} Scale: {severity['scale']}. {severity['source']}", css="soft"),
    ]


def density_section(density: Mapping[str, Any]) -> list[ET.Element]:
    """HU statistics and density classes of the infection."""
    if "reason" in density:
        return [element("p", f"Not stated: {density['reason']}.")]
    if density["statistics"] is None:
        return [element("p", "There is no infection to measure.")]
    names = {"mean_hu": "mean", "sd_hu": "SD", "min_hu": "min", "p5_hu": "5 %", "p25_hu": "25 %"}
    names |= {"median_hu": "median", "p75_hu": "75 %", "p95_hu": "95 %", "max_hu": "max"}
    statistics = ["HU", *(f"{density['statistics'][name]:.0f}" for name in names)]
    classes = [
        (one["words"], _limits(one["from_hu"], one["below_hu"]), percent(one["infection_percent"]), _class_size(one))
        for one in density["classes"]
    ]
    title = density["classes_name"]
    return [
        figures_table(["", *names.values()], [statistics]),
        element("p", f"{title[0].upper()}{title[1:]}:"),
        figures_table(("density", "HU", "of the infection", "size"), classes),
        element("p", density["classes_source"], css="soft"),
    ]


def _limits(low: int | None, high: int | None) -> str:
    """The range of a density class in words."""
    if low is None or high is None:
        return f"below {high}" if low is None else f"{low} and above"
    return f"{low} to below {high}"


def _class_size(one: Mapping[str, Any]) -> str:
    """Size of a density class or lesion, whose volume is `volume_ml`."""
    sizes = {"infection_voxels": one["infection_voxels"]}
    return size(sizes | ({"infection_ml": one["volume_ml"]} if "volume_ml" in one else {}), "infection")


def lesions_section(lesions: Mapping[str, Any]) -> list[ET.Element]:
    """The largest lesions one by one."""
    if not lesions["lesion_count"]:
        return [element("p", "No infection was outlined.")]
    rows = []
    for number, one in enumerate(lesions["lesions"], 1):
        slices = (" to ".join(map(str, one[f"slices_from_{end}"])) for end in ("superior", "inferior"))
        share = percent(one["infection_percent"])
        rows.append((str(number), _class_size(one), share, one["side"] or NOT_STATED, *slices))
    listed = f"{lesions['listed_count']} of {lesions['lesion_count']} lesions, the largest first"
    return [
        element("p", f"{listed}; connected through {lesions['connectivity']}. Slices are counted from 1."),
        figures_table(("", "size", "of the infection", "side", "slices from the head", "from the feet"), rows),
    ]
