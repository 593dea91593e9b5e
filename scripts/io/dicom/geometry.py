"""Where the slices of a DICOM series lie: their order, the affine, and what does not fit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...messages import some
from ..volume import LPS_TO_RAS, Note
from .header import COMPLETE, Slice, is_known

_SAME_SPACING = 1e-4  # mm; over 1,000 pixels a tenth of a millimetre
_PARALLEL = 1e-3  # direction cosines; scanners round to six digits, exporters to fewer
_SAME_PLACE = 0.01  # mm; nearer slices are one position
_SIDEWAYS = 1.0  # mm; a slice further off the line through its fellows has no place in an affine
_TILT = 0.5  # degrees; less is rounding of positions
POSITIONS_ROUNDED = float(np.sin(np.radians(_TILT)))  # largest cosine between two axes that counts as a right angle


@dataclass
class SliceStack:
    """A series in order."""

    planes: list[list[Slice]]  # at each position, ascending along the normal; several where duplicated
    affine: NDArray[np.float64]  # voxel index (column, row, slice) to mm, RAS, (4, 4)
    voxel_size_known: bool = True  # whether the affine holds real millimetres
    notes: list[Note] = field(default_factory=list)  # what was noticed


def stack_slices(slices: list[Slice]) -> SliceStack:
    """Sort slices by their position along the normal and derive the affine (PS3.3 C.7.6.2.1.1).

    The third column of the affine is the step from slice to slice exactly as the positions say, so
    that a tilted gantry gives a sheared affine. Where slices are missing it is the median step.

    Raises:
        UserError: if slices are scout views, incomplete, differ in size, pixel spacing or
            orientation, or lie where no affine can put them.
    """
    _check_alike(slices)
    rows_and_columns, found = _directions(slices)
    normal = np.cross(*rows_and_columns)
    positions, known, more = _positions(slices, normal)
    spacing, in_plane_known, still_more = _pixel_spacing(slices)
    stack = SliceStack([], np.eye(4), known and in_plane_known, [*found, *more, *still_more])
    order = np.argsort(positions @ normal, kind="stable")
    fresh = np.diff(positions[order] @ normal, prepend=-np.inf) > _SAME_PLACE
    for index, new in zip(order, fresh, strict=True):
        if new:
            stack.planes.append([])
        stack.planes[-1].append(slices[index])
    places = positions[order][fresh]
    step = _step(stack, places, normal)
    stack.affine[:3, :3] = np.column_stack([rows_and_columns[0] * spacing[1], rows_and_columns[1] * spacing[0], step])
    stack.affine[:3, 3] = places[0]
    stack.affine = LPS_TO_RAS @ stack.affine
    return stack


def _directions(slices: list[Slice]) -> tuple[NDArray[np.float64], list[Note]]:
    """Unit vectors along a row and along a column, (2, 3), LPS."""
    first = slices[0]
    if first.orientation is None:
        words = "The files do not say how the patient lies in the image; axial slices, seen from the feet, are assumed."
        return np.eye(3)[:2], [Note("orientation_assumed", words, "assumption")]
    vectors = np.array(first.orientation).reshape(2, 3)
    lengths = np.linalg.norm(vectors, axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(vectors[0] @ vectors[1]) > 0.01:
        found = f"ImageOrientationPatient {_numbers_in_words(first.orientation)}"
        raise UserError(f"{first.path}: {found}; expected: two perpendicular directions of length 1")
    vectors /= lengths[:, None]
    normal = np.cross(*vectors)
    if abs(normal[2]) > np.cos(np.radians(45)):
        return vectors, []
    words = "The slices are not axial; the network works on axial slices, which are cut from this stack."
    return vectors, [Note("not_axial", words, "warning")]


def _positions(slices: list[Slice], normal: NDArray[np.float64]) -> tuple[NDArray[np.float64], bool, list[Note]]:
    """ImagePositionPatient of each slice, (n, 3); where absent, what SliceLocation says of it."""
    lacking = [one for one in slices if one.position is None]
    if not lacking:
        return np.array([one.position for one in slices]), True, []
    names = some([one.path.name for one in lacking])
    if len(lacking) < len(slices) or (len(slices) > 1 and any(one.location is None for one in slices)):
        found = f"{names}: no ImagePositionPatient, so that their order cannot be known"
        raise UserError(f"{slices[0].path.parent}: {found}; expected: files with their position")
    words = "The files have no ImagePositionPatient: place and voxel size are not known, the order is SliceLocation's."
    locations = np.array([one.location or 0.0 for one in slices])
    return locations[:, None] * normal, False, [Note("no_position", words, "warning")]


def _pixel_spacing(slices: list[Slice]) -> tuple[tuple[float, ...], bool, list[Note]]:
    if slices[0].pixel_spacing is not None:
        return slices[0].pixel_spacing, True, []
    words = "The files have no valid PixelSpacing; 1 mm stands for it, and nothing can be said in mm or ml."
    return (1.0, 1.0), False, [Note("no_pixel_spacing", words, "warning")]


def _step(stack: SliceStack, places: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """The vector from slice to slice, mm, LPS; what is irregular becomes a note or an error."""
    if len(places) == 1:
        return _step_of_one(stack) * normal
    distances = places @ normal
    direction = (places[-1] - places[0]) / (distances[-1] - distances[0])
    sideways = np.linalg.norm(places - places[0] - np.outer(distances - distances[0], direction), axis=1)
    if sideways.max() > _SIDEWAYS:
        worst = stack.planes[int(sideways.argmax())][0].path
        found = f"the slice lies {sideways.max():.1f} mm beside the line through the others"
        raise UserError(f"{worst}: {found}; expected: slices in one straight stack")
    _compare_stated_tilt(stack, direction, normal)
    return direction * _regular_step(stack, distances)


def _step_of_one(stack: SliceStack) -> float:
    only = stack.planes[0][0]
    depth = only.step or only.thickness
    if depth is None:
        stack.voxel_size_known = False
        stack.notes.append(Note("no_thickness", "One slice of unknown thickness: no volume can be given.", "warning"))
        return 1.0
    words = f"There is one slice; its thickness, {depth:g} mm, is taken for the voxel's."
    stack.notes.append(Note("one_slice", words, "assumption"))
    return depth


def _compare_stated_tilt(stack: SliceStack, direction: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    sheared = float(np.degrees(np.arccos(np.clip(normal @ direction / np.linalg.norm(direction), -1, 1))))
    stated = max((plane[0].tilt for plane in stack.planes), key=abs)
    if sheared <= _TILT < abs(stated):
        words = f"The header states a gantry tilt of {stated:g} degrees that the positions do not show; they are used."
        stack.notes.append(Note("gantry_tilt", words, "warning"))


def _regular_step(stack: SliceStack, distances: NDArray[np.float64]) -> float:
    """Return the distance between slices in mm: the mean, or the median if some are missing."""
    steps = np.diff(distances)
    if np.abs(steps - steps.mean()).max() <= _tolerance(steps.mean()):
        return float(steps.mean())
    median = float(np.sort(steps)[(len(steps) - 1) // 2])
    times = np.maximum(np.round(steps / median), 1)
    fits = np.abs(steps - times * median) <= _tolerance(median) * times
    gaps, uneven = np.flatnonzero(fits & (times > 1)), np.flatnonzero(~fits)
    if np.count_nonzero(fits & (times == 1)) * 2 < len(steps):
        found = f"steps from {steps.min():.2f} to {steps.max():.2f} mm between {len(distances)} slices"
        folder = stack.planes[0][0].path.parent
        raise UserError(f"{folder}: {found}; expected: evenly spaced slices, a few of them missing at most")
    missing = int((times[gaps] - 1).sum())
    off = float(np.abs(distances - distances[0] - median * np.arange(len(distances))).max())
    wrong = f"The mask's header counts {median:g} mm a slice: places are up to {off:.1f} mm off, volumes are affected."
    if missing:
        words = f"{missing} slice(s) are missing {_between(distances, gaps)}. {wrong}"
        stack.notes.append(Note("missing_slices", words, "warning"))
    if uneven.size:
        words = f"Slices are not evenly spaced: {_between(distances, uneven)} instead of {median:g} mm. {wrong}"
        stack.notes.append(Note("uneven_slices", words, "warning"))
    return median


def _tolerance(step: float) -> float:
    """Tolerance of positions, which some round to 0.1 mm; 1 % of thick slices is no error."""
    return max(0.01 * step, min(0.1, 0.1 * step))


def _between(distances: NDArray[np.float64], where: NDArray[np.int_]) -> str:
    shown = [f"{distances[k]:.1f} and {distances[k + 1]:.1f} mm" for k in where[:5]]
    steps = distances[where + 1] - distances[where]
    rest = f" and in {len(where) - 5} more places" if len(where) > 5 else ""
    return f"between {', '.join(shown)}{rest} (steps of {steps.min():.2f} to {steps.max():.2f} mm)"


def _check_alike(slices: list[Slice]) -> None:
    """Raise UserError for scout views, unreadable pixels, slices of other size or orientation."""
    if all(one.localizer for one in slices):
        raise UserError(f"{slices[0].path}: a localizer (scout view); expected: a CT series of axial slices")
    _refuse_unknown_syntax(slices)
    incomplete = [one.path.name for one in slices if not one.complete]
    if incomplete:
        raise UserError(f"{slices[0].path.parent}: {some(incomplete)}: truncated; expected: {COMPLETE}")
    _refuse_others(slices, "pixels", [(one.columns, one.rows) for one in slices], 0)
    _refuse_others(slices, "mm between pixels", [one.pixel_spacing for one in slices], _SAME_SPACING)
    _refuse_others(slices, "as orientation", [one.orientation for one in slices], _PARALLEL)
    if not slices[0].rows or not slices[0].columns:
        raise UserError(f"{slices[0].path}: no Rows or Columns; expected: {COMPLETE}")


def _refuse_unknown_syntax(slices: list[Slice]) -> None:
    unknown = [one for one in slices if not is_known(one.compression)]
    if unknown:
        which = f"{len(unknown)} of {len(slices)} slices in the private transfer syntax {unknown[0].compression[:64]}"
        expected = "a transfer syntax of the standard; convert the files (gdcmconv --raw IN OUT)"
        raise UserError(f"{unknown[0].path}: {which}; expected: {expected}")


def _refuse_others(
    slices: list[Slice], what: str, values: Sequence[tuple[float, ...] | None], tolerance: float
) -> None:
    usual = Counter(values).most_common(1)[0][0]
    others = [k for k, value in enumerate(values) if not _alike(value, usual, tolerance)]
    if others:
        names = some([slices[k].path.name for k in others])
        found = f"{names}: {_numbers_in_words(values[others[0]])} {what}, the rest {_numbers_in_words(usual)}"
        raise UserError(f"{slices[0].path.parent}: {found}; expected: a series of equal slices (move the others away)")


def _alike(one: tuple[float, ...] | None, other: tuple[float, ...] | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= tolerance


def _numbers_in_words(value: tuple[float, ...] | None) -> str:
    """Return '0.7 x 0.7', or 'no' for None."""
    return "no" if value is None else " x ".join(f"{one:g}" for one in value)
