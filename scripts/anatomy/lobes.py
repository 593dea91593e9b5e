"""Read lobe masks that the user provides: which voxel belongs to which of the five lobes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .sides import LEFT, RIGHT

LOBES = {
    "left_upper": "lung_upper_lobe_left",
    "left_lower": "lung_lower_lobe_left",
    "right_upper": "lung_upper_lobe_right",
    "right_middle": "lung_middle_lobe_right",
    "right_lower": "lung_lower_lobe_right",
}
"""The lobes in the order of their codes, 1 to 5, with TotalSegmentator's names.

It is the order of lungmask's LTRCLobes, and of TotalSegmentator's classes 10 to 14."""
FIRST_CLASS = 10
"""Of TotalSegmentator's task "total", version 2; version 1 counted otherwise."""
EXPECTED = (
    "expected: 1 left upper, 2 left lower, 3 right upper, 4 right middle, 5 right lower lobe, or TotalSegmentator's "
    "10 to 14"
)
_CODE = {name: code for code, name in enumerate(LOBES, 1)}
_PLACES = (  # of two groups of lobes the first lies further along the axis, in LPS: what it is if not
    (0, ("left_upper", "left_lower"), ("right_upper", "right_middle", "right_lower"), "left lobes lie at the right"),
    (2, ("left_upper",), ("left_lower",), "left upper lobe lies below the left lower lobe"),
    (2, ("right_upper",), ("right_lower",), "right upper lobe lies below the right lower lobe"),
    (2, ("right_upper",), ("right_middle",), "right upper lobe lies below the right middle lobe"),
)


def read_lobes(mask: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a lobe mask with the codes of `LOBES`, 0 elsewhere.

    Args:
        mask: (X, Y, Z), LPS, with 1 to 5, or with TotalSegmentator's classes of task "total", of
            which other organs count as 0.

    Raises:
        ValueError: if the mask is no volume, holds no lobe or other values, or if the lobes do not
            lie to each other as in a body.
    """
    if mask.ndim != 3:
        raise ValueError(f"the lobe mask has shape {mask.shape}; expected: (X, Y, Z)")
    values = {float(value) for z in range(mask.shape[2]) for value in np.unique(mask[:, :, z])} - {0.0}
    classes = range(FIRST_CLASS, FIRST_CLASS + len(LOBES))
    first = FIRST_CLASS if values & set(classes) else 1
    if first == 1 and not values <= set(_CODE.values()):
        found = ", ".join(f"{value:g}" for value in sorted(values)[:6])
        raise ValueError(f"the lobe mask holds the values {found}; {EXPECTED}")
    if not values:
        raise ValueError(f"the lobe mask is empty; {EXPECTED}")
    codes = np.zeros(mask.shape, np.uint8)
    for z in range(mask.shape[2]):
        for code in _CODE.values():
            codes[:, :, z][mask[:, :, z] == first + code - 1] = code
    _check_places(codes)
    return codes


def lungs_of(lobes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the lungs that the lobes make up: 1 right, 2 left."""
    sides = [0, *(LEFT if name.startswith("left") else RIGHT for name in LOBES)]
    lungs: NDArray[np.uint8] = np.array(sides, np.uint8)[lobes]
    return lungs


def _check_places(codes: NDArray[np.uint8]) -> None:
    areas = _areas(codes)
    for axis, far, near, wrong in _PLACES:
        centres = [_centre(areas[axis], group) for group in (far, near)]
        if np.isfinite(centres).all() and centres[0] < centres[1]:
            raise ValueError(f"the {wrong}; {EXPECTED}")


def _areas(codes: NDArray[np.uint8]) -> dict[int, NDArray[np.int64]]:
    """Count the voxels of each code in each plane along x and along z, (planes, codes)."""
    width, count = len(codes), len(LOBES) + 1
    along_x, along_z = np.zeros((width, count), np.int64), np.zeros((codes.shape[2], count), np.int64)
    columns = count * np.arange(width)[:, None]
    for z, areas in enumerate(along_z):
        found = np.bincount((columns + codes[:, :, z]).ravel(), minlength=along_x.size).reshape(along_x.shape)
        along_x += found
        areas += found.sum(axis=0)
    return {0: along_x, 2: along_z}


def _centre(areas: NDArray[np.int64], group: tuple[str, ...]) -> float:
    """Return the mean index of lobes along an axis; NaN if there are none."""
    found = areas[:, [_CODE[name] for name in group]].sum(axis=1)
    return float(found @ np.arange(len(found)) / found.sum()) if found.any() else float("nan")
