"""Downsample a scan to about 2 mm slab by slab; morphology on masks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

_SIZE = 2.25  # mm: blocks of whole voxels come as close to it as they can
_LOWEST, _HIGHEST = -1024, 1500  # HU that padding and metal are clipped to before voxels are averaged
ALL_NEIGHBOURS = np.ones((3, 3, 3), bool)
"""Of a voxel, those at its corners too: the voxels of a lesion touch in any of these ways."""
_SLAB = 16  # slices read at once: whole cache lines of an array whose last axis is z


@dataclass(frozen=True)
class DownsampledScan:
    """Hold a scan averaged over blocks of whole voxels.

    Attributes:
        hu: mean of each block, int16, in [-1024, 1500], (X', Y', Z').
        steps: full-resolution voxels in a block along x, y, z.
        spacing: size of a block along x, y, z in mm.
        shape: full-resolution shape (X, Y, Z).
    """

    hu: NDArray[np.int16]
    steps: tuple[int, int, int]
    spacing: Spacing
    shape: tuple[int, int, int]

    @property
    def ml(self) -> float:
        """Volume of a block in ml."""
        return float(np.prod(self.spacing)) / 1000


def in_voxels(length: float, size: float) -> float:
    """Return how many voxels a length is in mm, or a volume in mm3, for a step to whole ones.

    The last digits are left out: a header keeps 0.9 mm in single or double precision, as a size or
    as columns of a matrix, and a scan has to be the same in each.

    >>> in_voxels(2.25, 0.9), in_voxels(2.25, 0.9 + 1e-8), in_voxels(9, 2.9999999)
    (2.5, 2.5, 3.0)
    """
    return round(length / size, 4)


def choose_steps(spacing: Spacing) -> tuple[int, int, int]:
    """Return how many voxels are joined along x, y, z; thick slices stay as they are.

    >>> choose_steps((0.7, 0.7, 1.0)), choose_steps((1.5, 1.5, 8.0))
    ((3, 3, 2), (2, 2, 1))
    """
    x, y, z = (max(1, round(in_voxels(_SIZE, size))) for size in spacing)
    return x, y, z


def downsample(hu: NDArray[Any], spacing: Spacing) -> DownsampledScan:
    """Average blocks of voxels; what is not a number counts as air.

    Args:
        hu: HU (X, Y, Z) in LPS order, int16 or float32.
        spacing: voxel size along x, y, z in mm.

    Raises:
        ValueError: if `hu` is not a volume with at least one voxel or the spacing is not three
            positive numbers.
    """
    if hu.ndim != 3 or not hu.size:
        raise ValueError(f"the scan has shape {hu.shape}; expected: (X, Y, Z) with at least one voxel")
    if not all(0 < size < np.inf for size in spacing):
        raise ValueError(f"the spacing is {tuple(spacing)}; expected: three positive sizes in mm")
    x, y, z = (float(size) for size in spacing)
    steps = choose_steps((x, y, z))
    slab = max(1, _SLAB // steps[2]) * steps[2]
    parts = [_average(hu[:, :, low : low + slab], steps) for low in range(0, hu.shape[2], slab)]
    size = (x * steps[0], y * steps[1], z * steps[2])
    return DownsampledScan(np.concatenate(parts, axis=2), steps, size, hu.shape)


def _average(slab: NDArray[Any], steps: tuple[int, int, int]) -> NDArray[np.int16]:
    """Return the mean of each block of a slab; blocks at the end hold what is left."""
    mean = slab.astype(np.float32)
    if slab.dtype.kind == "f":
        np.nan_to_num(mean, copy=False, nan=_LOWEST)
    np.clip(mean, _LOWEST, _HIGHEST, out=mean)
    for axis, step in enumerate(steps):
        if step > 1:
            mean = np.moveaxis(_block_means(np.moveaxis(mean, axis, 0), step), 0, axis)
    return np.rint(mean).astype(np.int16)


def _block_means(values: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Return the mean of each block along the first axis, by strided sums: `reduceat` is slow."""
    first = values[::step]
    rest = np.zeros_like(first)
    for offset in range(1, step):
        part = values[offset::step]
        rest[: len(part)] += part
    rest += first
    whole = len(values) // step
    rest[:whole] /= np.float32(step)
    rest[whole:] /= np.float32(len(values) % step or 1)
    return rest


def reduce_mask(mask: Mask, steps: tuple[int, int, int]) -> Mask:
    """Return which blocks of a mask (X, Y, Z) hold a marked voxel."""
    for axis, step in enumerate(steps):
        if step > 1:
            mask = np.logical_or.reduceat(mask, np.arange(0, mask.shape[axis], step), axis=axis)
    return mask


def enlarge(plane: NDArray[Any], steps: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[Any]:
    """Enlarge an axial plane of the downsampled grid (X', Y') to full resolution (X, Y)."""
    for axis in (0, 1):
        plane = plane.repeat(steps[axis], axis)
    return plane[: shape[0], : shape[1]]


def erode(mask: Mask, radius: float, spacing: Spacing) -> Mask:
    """Erode by a ball of `radius` mm; the array's border is no outside."""
    eroded = np.zeros_like(mask)
    if mask.any():
        place = box(mask, margin=1)
        eroded[place] = ~_within(~mask[place], radius, spacing)
    return eroded


def dilate(mask: Mask, radius: float, spacing: Spacing) -> Mask:
    """Dilate by a ball of `radius` mm."""
    dilated = np.zeros_like(mask)
    if mask.any():
        place = box(mask, margin=1 + int(np.ceil(radius / min(spacing))))
        dilated[place] = _within(mask[place], radius, spacing)
    return dilated


def _within(mask: Mask, radius: float, spacing: Spacing) -> Mask:
    """Return what lies within `radius` mm of a mask.

    The ball is a bundle of columns along the axis that is contiguous in memory. The mask is grown
    along that axis step by step, packed to bits, and moved to the place of each column of that
    length: 20 times as fast as a distance transform for balls of a few voxels.
    """
    order = np.argsort(mask.strides)[::-1]
    rows = mask.transpose(order)
    reach = [int(radius / spacing[axis]) + 1 for axis in order]
    x, y, z = np.ix_(*((np.arange(-n, n + 1) * spacing[axis]) ** 2 for n, axis in zip(reach, order, strict=True)))
    lengths = (np.sqrt(x + y + z).round(4) <= radius).sum(axis=2)
    grown = rows.copy()
    near = np.zeros_like(np.packbits(grown, axis=2))
    for step in range(reach[2] + 1):
        if step:
            grown[..., step:] |= rows[..., :-step]
            grown[..., :-step] |= rows[..., step:]
        bits = np.packbits(grown, axis=2)
        for dx, dy in (np.argwhere(lengths == 2 * step + 1) - reach[:2]).tolist():
            near[_moved(dx), _moved(dy)] |= bits[_moved(-dx), _moved(-dy)]
    return np.unpackbits(near, axis=2, count=rows.shape[2]).view(np.bool_).transpose(np.argsort(order))


def _moved(step: int) -> slice:
    """Return the part of an axis that is covered by what moves along it by some steps."""
    return slice(step, None) if step >= 0 else slice(None, step)


def close(mask: Mask, radius: float, spacing: Spacing) -> Mask:
    """Close by a ball of `radius` mm, beyond the array's border as well."""
    margin = [int(np.ceil(radius / size)) + 1 for size in spacing]
    framed = np.pad(mask, [(width, width) for width in margin])
    closed = erode(dilate(framed, radius, spacing), radius, spacing)
    inside = tuple(slice(width, -width) for width in margin)
    return closed[inside] | mask


def box(mask: Mask, margin: int = 0) -> tuple[slice, ...]:
    """Return the bounding box of a mask that is not empty, `margin` voxels wider."""
    sides = []
    for axis, size in enumerate(mask.shape):
        found = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        sides.append(slice(max(0, int(found[0]) - margin), min(size, int(found[-1]) + 1 + margin)))
    return tuple(sides)


def centre(mask: Mask, axis: int) -> float:
    """Return the mean index of a mask that is not empty along an axis."""
    counts = mask.sum(axis=tuple(other for other in range(mask.ndim) if other != axis))
    return float(counts @ np.arange(len(counts)) / counts.sum())


def largest(mask: Mask) -> Mask:
    """Return the largest component, connected by faces."""
    parts, count = ndimage.label(mask)
    return mask if count < 2 else parts == int(np.bincount(parts[mask]).argmax())


def chosen(parts: NDArray[np.int32], labels: Iterable[int]) -> Mask:
    """Return where an array of labels from 0 holds one of some."""
    table = np.zeros(int(parts.max(initial=0)) + 1, bool)
    table[list(labels)] = True
    return table[parts]


def fill_holes(mask: Mask) -> Mask:
    """Fill what is not connected by faces to the array's border."""
    parts, count = ndimage.label(~mask)
    inner = np.ones(count + 1, bool)
    for axis in range(mask.ndim):
        for end in (0, -1):
            inner[np.unique(parts.take(end, axis))] = False
    inner[0] = True
    return inner[parts]
