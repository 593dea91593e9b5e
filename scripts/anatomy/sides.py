"""Tell the right lung from the left, also where both touch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .downsampling import Mask, Spacing, box, centre, erode, in_voxels

RIGHT, LEFT = 1, 2  # the codes of masks

_RADII = (0.0, 2.0, 3.0, 4.5, 6.0, 8.0, 10.0, 13.0)  # mm: erosions tried until the lungs come apart
_SMALLEST = 0.08  # of the volume left: a lung, not a piece of one
_ONE_SIDED = 0.85  # of the volume at one side of the middle: there is but one lung
_APART = 50.0  # mm between the middles of both lungs along x, at least


def split_sides(lungs: Mask, spacing: Spacing, middle: float | None = None) -> tuple[NDArray[np.uint8], str]:
    """Assign every voxel of the grid to the nearest lung.

    The lungs touch in front of the heart and behind it in a sheet of a voxel or two. The mask is
    eroded, by as little as it takes, until its two largest parts are a lung each; every voxel then
    belongs to the nearest of them. Where no erosion parts them, or there is but one lung, the
    body's middle tells left from right.

    Args:
        lungs: both lungs (X, Y, Z), LPS, at least one voxel.
        spacing: voxel size in mm.
        middle: x of the body's middle, in voxels; the array's if not known.

    Returns:
        1 (right) or 2 (left) for each voxel of the grid, uint8 (X, Y, Z), and how they were told
        apart: "components", "erosion" or "midline".

    Raises:
        ValueError: if the mask is empty.
    """
    if not lungs.any():
        raise ValueError("the mask of both lungs is empty")
    place = box(lungs)
    seeds, how = _find_seeds(lungs[place], spacing)
    if seeds is None:
        sides = np.full(lungs.shape, RIGHT, np.uint8)
        sides[_find_plane(lungs, spacing, (len(lungs) - 1) / 2 if middle is None else middle) :] = LEFT
        return sides, "midline"
    nearest = ndimage.distance_transform_edt(seeds == 0, sampling=spacing, return_distances=False, return_indices=True)
    around = [(side.start, size - side.stop) for side, size in zip(place, lungs.shape, strict=True)]
    return np.pad(seeds[tuple(nearest)], around, mode="edge"), how


def _find_seeds(lungs: Mask, spacing: Spacing) -> tuple[NDArray[np.uint8] | None, str]:
    """Part the lungs by the least erosion that does, coded as the lungs are; else None."""
    for radius in _RADII:
        seeds = _two_lungs(erode(lungs, radius, spacing), spacing)
        if seeds is not None:
            return seeds, "erosion" if radius else "components"
    return None, "midline"


def _two_lungs(mask: Mask, spacing: Spacing) -> NDArray[np.uint8] | None:
    """The two largest components as right and left, if they are two lungs beside each other."""
    parts, count = ndimage.label(mask)
    volumes = np.bincount(parts[mask])[1:]
    if count < 2 or np.sort(volumes)[-2] < _SMALLEST * volumes.sum():
        return None
    pair = np.argsort(volumes)[-2:] + 1
    middles = [centre(parts == part, 0) for part in pair]
    if abs(middles[0] - middles[1]) * spacing[0] < _APART:
        return None
    right, left = pair if middles[0] < middles[1] else pair[::-1]
    codes = np.zeros(count + 1, np.uint8)
    codes[[right, left]] = RIGHT, LEFT
    return codes[parts]


def _find_plane(lungs: Mask, spacing: Spacing, middle: float) -> int:
    """Find the sagittal plane at which the left begins: least lung near the body's middle.

    A single lung bulges over the middle and is not cut: it is the lung of the side that holds most
    of it.
    """
    areas = lungs.sum(axis=(1, 2))
    at = int(np.clip(round(middle), 0, len(areas) - 1))
    right = areas[:at].sum() / areas.sum()
    if not 1 - _ONE_SIDED < right < _ONE_SIDED:
        return len(areas) if right > 0.5 else 0
    reach = max(1, int(in_voxels(30, spacing[0])))
    low = max(0, at - reach)
    near = areas[low : at + reach + 1]
    least = low + np.flatnonzero(near == near.min())
    return int(least[np.abs(least - at).argmin()])
