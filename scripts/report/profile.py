"""The slice profile as a drawing: infected area from head to feet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

_WIDTH, _HEIGHT = 720, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 26, 44


def draw_profile(profile: Mapping[str, Any]) -> ET.Element:
    """Draws infected area, and lung area behind it where it is known, per axial slice as SVG.

    Args:
        profile: the slice profile that `scripts.report.measure.measure` gives; area in square
            centimetres where the voxel size is known, else in voxels.

    Returns:
        The element <svg>; its shapes have the classes "lung" and "infection", which the page
        colours.
    """
    known = "infection_mm2" in profile
    unit, per_unit = ("cm²", 100) if known else ("voxels", 1)
    suffix = "mm2" if known else "voxels"
    areas = {
        name: [area / per_unit for area in profile[f"{name}_{suffix}"]]
        for name in ("lung", "infection")
        if f"{name}_{suffix}" in profile
    }
    top = max(max(values) for values in areas.values()) or 1.0
    svg = ET.Element("svg", {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "role": "img", "class": "profile"})
    ET.SubElement(svg, "title").text = f"Area per axial slice in {unit}, from the most superior slice at the left"
    for name, values in areas.items():
        ET.SubElement(svg, "path", {"class": name, "d": _steps(values, top)})
    _axes(svg, len(areas["infection"]), top, unit)
    _legend(svg, list(areas))
    return svg


def _steps(values: Sequence[float], top: float) -> str:
    """The outline of a bar chart without gaps, one bar a slice."""
    width = (_WIDTH - _LEFT - _RIGHT) / len(values)
    base, height = _HEIGHT - _BOTTOM, _HEIGHT - _BOTTOM - _TOP
    path = [f"M{_LEFT} {base}"]
    path += [f"V{base - height * value / top:.1f}H{_LEFT + width * (k + 1):.1f}" for k, value in enumerate(values)]
    return "".join([*path, f"V{base}Z"])


def _axes(svg: ET.Element, depth: int, top: float, unit: str) -> None:
    """Both axes with the ends of their ranges."""
    base, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    ET.SubElement(svg, "path", {"class": "axis", "d": f"M{_LEFT} {_TOP}V{base}H{right}"})
    for y, value in ((_TOP, f"{top:.3g}"), ((_TOP + base) / 2, f"{top / 2:.3g}"), (base, "0")):
        _write(svg, _LEFT - 6, y + 4, value, "end")
    _write(svg, _LEFT, _TOP - 11, f"area, {unit}", "middle")
    _write(svg, _LEFT, base + 17, "slice 1", "start")
    _write(svg, right, base + 17, f"slice {depth}", "end")
    _write(svg, _LEFT, base + 34, "superior (head)", "start")
    _write(svg, right, base + 34, "inferior (feet)", "end")


def _legend(svg: ET.Element, names: Sequence[str]) -> None:
    """What the areas are."""
    for place, name in enumerate(reversed(names)):
        x = _WIDTH - _RIGHT - 90 * (len(names) - place)
        ET.SubElement(svg, "rect", {"class": name, "x": str(x), "y": "6", "width": "12", "height": "12"})
        _write(svg, x + 18, 16, name, "start")


def _write(svg: ET.Element, x: float, y: float, text: str, anchor: str) -> None:
    """One line of text."""
    ET.SubElement(svg, "text", {"x": str(x), "y": str(y), "text-anchor": anchor}).text = text
