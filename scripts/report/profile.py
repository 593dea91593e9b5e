"""The slice profile as a drawing: infected area from head to feet."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"lung": "#6b8099", "infection": "#c25700", "soft": "#54606f", "line": "#d3d9e0"}
"""Colours of the light page by their names in theme.css, whose values take their place."""
STYLE = {"svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 13, "text.color": COLOURS["soft"]}
WORDS = {"lung": "lungs", "infection": "opacities"}
"""What the drawing calls the areas of a profile."""
_STYLE_LOCK = Lock()  # matplotlib's settings are those of the whole process


def draw_profile(profile: Mapping[str, Any]) -> str:
    """Draw the opacities' area, and the lungs' below it where known, per axial slice, as <svg>.

    Of a profile that `measure_infection` gives, areas are in square centimetres where the voxel
    size is known, else in voxels. Text is text, colours are those of the page, equal profiles give
    equal drawings. Each area has a scale of its own, since infection is often a few percent of
    the lung.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    unit, per_unit, suffix = ("cm²", 100, "mm2") if "infection_mm2" in profile else ("voxels", 1, "voxels")
    areas = {
        name: [area / per_unit for area in profile[f"{name}_{suffix}"]]
        for name in ("infection", "lung")
        if f"{name}_{suffix}" in profile
    }
    file = StringIO()
    with _STYLE_LOCK, style.context(["default", STYLE]):
        figure = Figure(figsize=(6.7, 1.2 + 1.6 * len(areas)), frameon=False, layout="constrained")
        for axes, (name, values) in zip(figure.subplots(len(areas), squeeze=False)[:, 0], areas.items(), strict=True):
            _draw(axes, name, values, unit)
        _name_ends(axes, len(values))
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    width, height = (72 * inches for inches in figure.get_size_inches())
    shapes = file.getvalue().partition("</defs>")[2]  # after the style sheet, which would hold for the whole page
    for name, colour in COLOURS.items():
        shapes = shapes.replace(colour, f"var(--{name})")
    return (
        f'<svg class="profile" role="img" viewBox="0 0 {width:g} {height:g}"><title>{_say(areas, unit)}</title>{shapes}'
    )


def _say(areas: Mapping[str, list[float]], unit: str) -> str:
    """Describe the drawing for those who do not see it."""
    parts = []
    for name, values in areas.items():
        slices = [k + 1 for k, value in enumerate(values) if value]
        where = f"in slices {slices[0]} to {slices[-1]}, " if slices else ""
        largest = f"largest {_number(max(values), unit)} {unit} in slice {values.index(max(values)) + 1}"
        parts.append(f"{WORDS[name]} {where}{largest}" if slices else f"no {WORDS[name]}")
    return f"Area per axial slice, of {len(values)}, counted from the head: {'; '.join(parts)}"


def _number(area: float, unit: str) -> str:
    return f"{area:,.0f}" if unit == "voxels" else f"{area:,.1f}"


def _draw(axes: Axes, name: str, values: list[float], unit: str) -> None:
    from matplotlib.ticker import MaxNLocator

    steps = axes.stairs(values, range(len(values) + 1), fill=True, color=COLOURS[name], clip_on=False)
    steps.set_gid(f"profile-{name}")
    axes.set(xlim=(0, len(values)), ylim=(0, max(values) or 1))
    axes.patch.set_visible(False)
    axes.set_title(f"{WORDS[name]}, {unit}; largest {_number(max(values), unit)}", loc="left", fontsize="medium")
    axes.set_xticks([])
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.tick_params(left=False, bottom=False, labelcolor=COLOURS["soft"])
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=COLOURS["line"], linewidth=0.8, clip_on=False)
    axes.spines[:].set_visible(False)
    axes.spines["bottom"].set(visible=True, color=COLOURS["soft"])


def _name_ends(axes: Axes, depth: int) -> None:
    axes.set_xticks([0, depth], ["slice 1, superior (head)", f"slice {depth}, inferior (feet)"])
    left, right = axes.get_xticklabels()
    left.set_horizontalalignment("left")
    right.set_horizontalalignment("right")
