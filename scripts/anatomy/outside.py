"""Remove marks that lie outside of the body, or in lesions outside of the lungs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .downsampling import ALL_NEIGHBOURS, Mask, dilate, enlarge, reduce_mask
from .hull import convex_hull
from .lungs import Lungs
from .tissue import Tissues

MARGIN = 4.0  # mm beyond the lungs, and at least a slice
LEAST_INSIDE = 0.01  # of a lesion, in that margin: a lobe consolidated as a whole, which the lungs lack, touches them
PART_OF_LUNGS = "the scan shows a part of the lungs only"


@dataclass(frozen=True)
class Zones:
    """Hold where infection may lie, on a grid of blocks of voxels.

    Attributes:
        codes: 0 outside of the body, 1 in it, 2 in the lungs with their margin, uint8 (X', Y',
            Z'), LPS; no 2 where the lungs cannot be relied on.
        steps: full-resolution voxels in a block along x, y, z.
    """

    codes: NDArray[np.uint8]
    steps: tuple[int, int, int]


@dataclass(frozen=True)
class Removed:
    """Count what was removed from a mask.

    Attributes:
        outside_body: voxels outside of the body.
        outside_lungs: voxels within the body, of lesions outside of the lungs.
        reason: why nothing was removed for lying outside of the lungs; None where it was looked at.
    """

    outside_body: int = 0
    outside_lungs: int = 0
    reason: str | None = None


KEPT = Removed(reason="it was kept, as asked for")
NO_SIZE = Removed(reason="the voxel size is unknown")


def why_kept(lungs: Lungs) -> str | None:
    """Say why lungs cannot tell what lies outside of them; None where they can."""
    if lungs.plausible:
        return PART_OF_LUNGS if lungs.partial else None
    return "the lungs as segmented are not plausible: " + "; ".join(doubt.rstrip(".") for doubt in lungs.doubts)


def find_zones(seen: Tissues, lungs: Lungs) -> Zones:
    """Find where infection may lie; a scan without a body rules nothing out.

    Args:
        seen: the tissues of the scan.
        lungs: its lungs, found or given; only plausible ones that the scan shows whole are used.
    """
    codes = seen.body.astype(np.uint8) if seen.body.any() else np.ones(seen.body.shape, np.uint8)
    if why_kept(lungs) is None:
        margin = max(MARGIN, 1.01 * max(seen.scan.spacing))
        codes[dilate(blocks_of(lungs, seen.scan.steps), margin, seen.scan.spacing)] = 2
    return Zones(codes, seen.scan.steps)


def remove_outside(mask: NDArray[np.uint8], zones: Zones, reason: str | None = None) -> Removed:
    """Remove marks outside of the body, and lesions outside of the lungs, from a mask in place.

    The body counts up to its convex hull in each axial slice, since lung may lie open to the room
    where the field of view cuts the chest wall.

    A lesion of which at least `LEAST_INSIDE` lies in the lungs stays whole, for the lungs are found
    by thresholds and lack a lobe that is consolidated down to the diaphragm. Of others the part
    outside of the lungs is removed. Lesions are told apart on the grid of the zones.

    Args:
        mask: (X, Y, Z) in {0, 1}, LPS.
        zones: see `find_zones`.
        reason: why the zones hold no lungs, see `why_kept`.

    Returns:
        How much was removed.
    """
    counts = _count_by_block(mask, zones)
    outside = _beyond_the_body(counts, zones)
    outside_body = int(counts[outside].sum())
    counts[outside] = 0
    apart = _apart(counts, zones.codes == 2)
    outside |= apart
    for z in np.flatnonzero(outside.any(axis=(0, 1))):
        drop = enlarge(outside[:, :, z], zones.steps, mask.shape)
        for index in range(z * zones.steps[2], min((z + 1) * zones.steps[2], mask.shape[2])):
            mask[:, :, index][drop] = 0
    return Removed(outside_body, int(counts[apart].sum()), reason)


def _count_by_block(mask: NDArray[np.uint8], zones: Zones) -> NDArray[np.int64]:
    """Return how many voxels of each block are marked."""
    counts = np.zeros(zones.codes.shape, np.int64)
    columns, rows = zones.codes.shape[0], zones.codes.shape[1]
    for z in range(mask.shape[2]):
        x, y = np.nonzero(mask[:, :, z] > 0)
        if x.size:
            block = x // zones.steps[0] * rows + y // zones.steps[1]
            counts[:, :, z // zones.steps[2]] += np.bincount(block, minlength=columns * rows).reshape(columns, rows)
    return counts


def _beyond_the_body(counts: NDArray[np.int64], zones: Zones) -> Mask:
    """Return the marked blocks that lie outside of the body's convex hull in their slice."""
    beyond: Mask = (counts > 0) & (zones.codes == 0)
    for z in np.flatnonzero(beyond.any(axis=(0, 1))):
        beyond[:, :, z] &= ~convex_hull(zones.codes[:, :, z] > 0)
    return beyond


def _apart(counts: NDArray[np.int64], inside: Mask) -> Mask:
    """Return the blocks outside of lesions that hardly reach inside; none where nothing is."""
    apart = np.zeros_like(inside)
    if not inside.any():
        return apart
    marked = np.nonzero(counts)
    lesion = ndimage.label(counts > 0, ALL_NEIGHBOURS)[0][marked]
    number, is_inside = counts[marked], inside[marked]
    few = np.bincount(lesion, number * is_inside) < LEAST_INSIDE * np.bincount(lesion, number)
    apart[marked] = few[lesion] & ~is_inside
    return apart


def blocks_of(lungs: Lungs, steps: tuple[int, int, int]) -> Mask:
    """Return where lungs lie on a grid of blocks, to which a mask that was given is reduced."""
    mask = lungs.mask > 0
    return mask if lungs.steps == steps else reduce_mask(mask, steps)
