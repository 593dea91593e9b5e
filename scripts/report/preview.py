"""Preview of a scan: its most affected slices with the outline of the infection."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..files import write_atomic
from ..inference.hounsfield import HounsfieldSlices
from ..io.masks import read_mask
from ..io.reading import read_scan
from .lettering import drawable, shortened
from .measure import affected_slices
from .wording import ml, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LUNG_WINDOW = (-1350.0, 150.0)  # level -600, width 1500 HU
_MASK_COLOUR, _TRUTH_COLOUR = "#ff9f1c", "#2ec4ff"  # told apart by the colour-blind, too
_COLUMNS, _ROWS = 3, 2
SHOWN_SLICES = _COLUMNS * _ROWS
"""Largest number of axial slices."""
_TITLE_POINTS = 15
_LETTERS_PER_INCH = 4.6  # of the title, were they all as wide as W
_PNG_LEVEL = 3  # as small as 6, the default, in less than half of its time
_AXIAL, _CORONAL, _SAGITTAL = "RLAP", "RLSI", "APSI"  # letters at the left, right, top and bottom
_PLACES = ((0.025, 0.5), (0.975, 0.5), (0.5, 0.96), (0.5, 0.04))  # of these letters


def draw_preview(
    image: NDArray[Any],
    mask: NDArray[Any],
    path: str | os.PathLike[str],
    truth: NDArray[Any] | None = None,
    spacing: Sequence[float] | None = None,
    title: str = "",
    least_slice_share: float = 0.0,
    oriented: bool = True,
) -> Path:
    """Draw axial slices, a coronal and a sagittal view with outlines into a PNG file.

    Axial slices are shown the radiological way: the patient's right at the left, anterior at the
    top.

    Args:
        image: HU, (X, Y, Z) or one slice (X, Y), in LPS order.
        mask: infection wherever above 0, of the same shape; outlined. ValueError for other shapes.
        path: the PNG file to write.
        truth: the reference mask; outlined in a second colour.
        spacing: voxel size along x, y, z in mm; None if unknown, then proportions are not claimed.
        title: what the picture is of, such as the case's name.
        least_slice_share: see `measure_infection`.
        oriented: whether the patient's directions are known; else none is claimed.
    """
    from matplotlib.lines import Line2D

    volumes = [np.asarray(array) for array in (image, mask, truth) if array is not None]
    if volumes[0].ndim not in (2, 3) or any(other.shape != volumes[0].shape for other in volumes):
        raise ValueError(f"image, mask and truth must share one 2D or 3D shape; got {[v.shape for v in volumes]}")
    scan, *outlines = (array.reshape(*array.shape[:2], -1) for array in volumes)
    outlines = [_binary(outline) for outline in outlines]
    chosen = choose_slices(reduce(np.logical_or, outlines), SHOWN_SLICES)
    figure = _lay_out(scan, outlines, chosen, spacing, oriented)
    shown = shortened(drawable(title), int(_LETTERS_PER_INCH * figure.get_figwidth()))
    figure.suptitle(shown, color="white", fontsize=_TITLE_POINTS, parse_math=False)
    figure.supxlabel(
        describe(outlines[0], chosen, spacing, least_slice_share, oriented),
        color="white",
        fontsize=11,
        parse_math=False,
    )
    names = {_MASK_COLOUR: "opacities", _TRUTH_COLOUR: "reference"}
    lines = [Line2D([], [], color=colour, label=name) for colour, name in names.items()][: len(outlines)]
    style: dict[str, Any] = {"facecolor": "black", "labelcolor": "white", "fontsize": 12, "ncols": 2}
    figure.legend(handles=lines, loc="outside upper right", **style)
    packed = {"compress_level": _PNG_LEVEL}
    return write_atomic(path, lambda temporary: figure.savefig(temporary, format="png", dpi=100, pil_kwargs=packed))


def _binary(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where the mask is above 0; a mask of zeros and ones is not copied, it may be large."""
    if mask.dtype.itemsize == 1 and mask.dtype.kind in "bu" and (mask.dtype.kind == "b" or mask.max() <= 1):
        return mask.view(np.bool_)
    return np.asarray(mask > 0)


def choose_slices(mask: NDArray[np.bool_], count: int) -> list[int]:
    """Choose at most `count` axial slices; return their indices from superior to inferior.

    These are the most affected slices, neighbours only where the infection spans few of them.
    Without infection they are evenly spaced.

    >>> mask = np.zeros((4, 4, 9), bool)
    >>> choose_slices(mask, 3)
    [7, 4, 1]
    >>> mask[:2, :2, 3:5], mask[0, 0, 7] = True, True
    >>> choose_slices(mask, 3)
    [7, 4, 3]
    """
    areas = mask.sum(axis=(0, 1))
    affected = np.flatnonzero(areas)
    if not affected.size:
        return sorted({int((k + 0.5) * len(areas) / count) for k in range(count)}, reverse=True)
    gap = max(len(affected) // count, 1)
    chosen: list[int] = []
    for k in affected[np.argsort(-areas[affected], kind="stable")]:
        if len(chosen) < count and all(abs(int(k) - other) >= gap for other in chosen):
            chosen.append(int(k))
    return sorted(chosen, reverse=True)


def describe(
    mask: NDArray[np.bool_],
    chosen: Sequence[int],
    spacing: Sequence[float] | None,
    least_slice_share: float = 0.0,
    oriented: bool = True,
) -> str:
    """Write the lines under the picture: extent of the mask, slices shown, what is unknown."""
    depth = mask.shape[2]
    areas = np.count_nonzero(mask, axis=(0, 1))
    voxels, affected = int(areas.sum()), affected_slices(areas, mask.shape, least_slice_share)
    extent = f"opacities in {affected} of {depth} slices, {percent(100 * voxels / mask.size)} of the scan's voxels"
    if spacing is not None:
        extent += f", {ml(voxels * float(np.prod(spacing)) / 1000)}"
    if not voxels:
        extent = f"nothing outlined in {depth} slices"
    shown = f"Slices shown, counted from the feet: {', '.join(str(k + 1) for k in chosen)}"
    if not oriented:
        return f"{extent}\nThe patient's directions and the size of pixels are unknown"
    return f"{extent}\n{shown}" + ("" if spacing is not None else "; voxel size unknown, proportions may be wrong")


def _lay_out(
    scan: NDArray[Any],
    outlines: list[NDArray[np.bool_]],
    chosen: list[int],
    spacing: Sequence[float] | None,
    oriented: bool,
) -> Figure:
    from matplotlib.figure import Figure

    deep = scan.shape[2] > 1
    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    across, down = columns + deep, max(rows, 1 + deep)
    figure = Figure(figsize=(max(4.2 * across, 8), 4.2 * down + 0.9), facecolor="black", layout="constrained")
    grid = figure.add_gridspec(2 * rows, across)
    step = spacing if spacing is not None else (1, 1, scan.shape[0] / scan.shape[2])  # unknown: square views
    planes = [scan, *outlines]
    for place, k in enumerate(chosen):
        row, column = divmod(place, columns)
        axes = figure.add_subplot(grid[2 * row : 2 * row + 2, column])
        name = f"slice {k + 1} of {scan.shape[2]}"
        _show(axes, [array[:, :, k] for array in planes], _AXIAL if oriented else "", step[1] / step[0], name)
    if deep:
        x, y = _middle(outlines[0], 0), _middle(outlines[0], 1)
        coronal, sagittal = figure.add_subplot(grid[:rows, -1]), figure.add_subplot(grid[rows:, -1])
        _show(coronal, [array[:, y, ::-1] for array in planes], _CORONAL, step[2] / step[0], "coronal")
        _show(sagittal, [array[x, :, ::-1] for array in planes], _SAGITTAL, step[2] / step[1], "sagittal")
    return figure


def _middle(mask: NDArray[np.bool_], axis: int) -> int:
    others = tuple(other for other in range(3) if other != axis)
    areas = mask.sum(axis=others)
    return int(areas.argmax()) if areas.any() else mask.shape[axis] // 2


def _show(axes: Axes, views: list[NDArray[Any]], letters: str, aspect: float, name: str) -> None:
    """Show one plane: its first index runs to the right, its second downwards."""
    from matplotlib.patheffects import withStroke

    picture, *outlines = views
    low, high = LUNG_WINDOW
    axes.imshow(picture.T, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="bilinear")
    for outline, colour in zip(outlines, (_MASK_COLOUR, _TRUTH_COLOUR), strict=False):
        if outline.any():
            framed = np.pad(outline, 1)  # closes the outline at the picture's edge, also of a single row
            x, y = (np.arange(-1, size + 1) for size in outline.shape)
            axes.contour(x, y, framed.T, levels=[0.5], colors=colour, linewidths=1.1)
    axes.set_title(name, color="white", fontsize=13)
    axes.set(xticks=[], yticks=[])  # unseen, yet the layout would measure their labels
    axes.set_axis_off()
    rim = [withStroke(linewidth=2.5, foreground="black")]  # legible on white tissue
    style: dict[str, Any] = {"color": "white", "fontsize": 13, "ha": "center", "va": "center", "path_effects": rim}
    for letter, place in zip(letters, _PLACES, strict=False):
        axes.text(*place, letter, transform=axes.transAxes, **style)


def preview_files(
    scan_path: str | os.PathLike[str],
    mask_path: str | os.PathLike[str],
    png_path: str | os.PathLike[str],
    truth_path: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Draw the preview of a scan and its mask, in any format of `read_scan` and any orientation.

    Raises:
        UserError: if a file cannot be read, is not one volume, does not lie on the scan's grid, the
            scan is not in HU, or PNG_PATH is not a free name that ends in .png.
    """
    target = Path(png_path)
    if target.suffix.lower() != ".png":
        raise UserError(f"{target}: the preview is a PNG picture; expected: a name that ends in .png")
    if target.exists() and not overwrite:
        raise UserError(f"{target}: exists; expected: a new file, or --overwrite")
    scan = read_scan(Path(scan_path))
    outline, *truth = (read_mask(Path(one), scan) for one in (mask_path, truth_path) if one is not None)
    hu = HounsfieldSlices(scan).rounded()
    known = truth[0] if truth else None
    return draw_preview(hu, outline, target, known, scan.known_spacing_lps, scan.name, oriented=not scan.picture)
