"""The slice profile as a drawing: infected area from head to feet."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"lung": "#cfdae6", "lung-edge": "#6b8099", "infection": "#c25700", "soft": "#54606f", "line": "#d3d9e0"}
"""Colours of the light page by their names in report.css, whose values take their place."""
STYLE = {"svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 13, "text.color": COLOURS["soft"]}
_STYLE_LOCK = Lock()  # matplotlib's settings are those of the whole process


def draw_profile(profile: Mapping[str, Any]) -> str:
    """Draw infected area, and lung area behind it where it is known, per axial slice, as <svg>.

    Of a profile that `measure_infection` gives, areas are in square centimetres where the voxel
    size is known, else in voxels. Text is text, colours are those of the page, equal profiles give
    equal drawings.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    unit, per_unit, suffix = ("cm²", 100, "mm2") if "infection_mm2" in profile else ("voxels", 1, "voxels")
    areas = {
        name: [area / per_unit for area in profile[f"{name}_{suffix}"]]
        for name in ("lung", "infection")
        if f"{name}_{suffix}" in profile
    }
    file = StringIO()
    with _STYLE_LOCK, style.context(["default", STYLE]):
        figure = Figure(figsize=(6.7, 3.3), frameon=False, layout="constrained")
        _draw(figure.add_subplot(), areas, unit)
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    width, height = (72 * inches for inches in figure.get_size_inches())
    shapes = file.getvalue().partition("</defs>")[2]  # after the style sheet, which would hold for the whole page
    for name, colour in COLOURS.items():
        shapes = shapes.replace(colour, f"var(--{name})")
    title = f"Area per axial slice in {unit}, from the most superior slice at the left"
    return f'<svg class="profile" role="img" viewBox="0 0 {width:g} {height:g}"><title>{title}</title>{shapes}'


def _draw(axes: Axes, areas: Mapping[str, list[float]], unit: str) -> None:
    from matplotlib.ticker import MaxNLocator

    depth = len(areas["infection"])
    for name, values in areas.items():
        steps = axes.stairs(values, range(depth + 1), fill=True, color=COLOURS[name], label=name, clip_on=False)
        steps.set_gid(f"profile-{name}")
        if name == "lung":
            steps.set(edgecolor=COLOURS["lung-edge"], linewidth=1)
    top = max(map(max, areas.values()))
    axes.set(xlim=(0, depth), ylim=(0, top or 1))
    axes.patch.set_visible(False)
    largest = f"{top:,.0f}" if unit == "voxels" else f"{top:,.1f}"
    axes.set_title(f"area, {unit}; largest {largest}", loc="left", fontsize="medium")
    axes.set_xticks([0, depth], ["slice 1, superior (head)", f"slice {depth}, inferior (feet)"])
    left, right = axes.get_xticklabels()
    left.set_horizontalalignment("left")
    right.set_horizontalalignment("right")
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.tick_params(left=False, bottom=False, labelcolor=COLOURS["soft"])
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=COLOURS["line"], linewidth=0.8, clip_on=False)
    axes.spines[:].set_visible(False)
    axes.spines["bottom"].set(visible=True, color=COLOURS["soft"])
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, reverse=True, borderaxespad=0)
