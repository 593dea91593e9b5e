"""Find the trachea and the main bronchi, which are air but no lung."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .downsampling import DownsampledScan, Mask, box, centre, dilate, erode

_THRESHOLDS = range(-980, -840, 10)  # HU: from tight to leaky
_VOLUME = (3.0, 110.0)  # ml of the airways as far as they are grown
_LEAK, _GROWN = 1.6, 45.0  # growth from one threshold to the next that is a leak, once there are so many ml
_LENGTH = 30.0  # mm along z, at least
_OFF_MIDLINE = 35.0  # mm to either side, at its top
_SECTION = 800.0  # mm^2: median area across; tracheas are 10 to 27 mm wide (Breatnach et al., AJR 1984;142:903)
_NARROW = 3.0  # mm: radius of bronchi that are left to the lung
_WALL = 2.6  # mm: the wall, and voxels that hold some of it


def find_airways(scan: DownsampledScan, air: Mask, midline: float) -> Mask:
    """Find the trachea with the main bronchi: what is connected to it in air much darker than lung.

    The higher the threshold, the more of the airways is found, until the region leaks into the
    lung. The last threshold before that is taken, and what is narrow is left to the lung.

    Args:
        scan: the downsampled scan.
        air: air inside the body, (X', Y', Z').
        midline: x of the body's middle, in voxels.

    Returns:
        Airways with their walls, (X', Y', Z'); empty where none are found.
    """
    tube = np.zeros(air.shape, bool)
    gas = air & (scan.hu < _THRESHOLDS[-1])
    if not gas.any():
        return tube
    around = box(gas)
    within = replace(scan, hu=np.ascontiguousarray(scan.hu[around]))  # in the order that components are labelled in
    tube[around] = _grow(within, np.ascontiguousarray(gas[around]), midline - around[0].start)
    if not tube.any():
        return tube
    place = box(tube, margin=3)
    wide = erode(tube[place], _NARROW, scan.spacing)
    tube[place] = dilate(wide, _NARROW + _WALL, scan.spacing)
    return tube


def _grow(scan: DownsampledScan, gas: Mask, midline: float) -> Mask:
    """Return the trachea with bronchi at the last threshold before it leaks."""
    tube = np.zeros(gas.shape, bool)
    for threshold in _THRESHOLDS:
        grown = _find_trachea(scan, gas & (scan.hu < threshold), midline)
        before, now = np.count_nonzero(tube), np.count_nonzero(grown)
        if before and now > max(_LEAK * before, _GROWN / scan.ml):
            break
        tube = grown if now else tube
    return tube


def _find_trachea(scan: DownsampledScan, gas: Mask, midline: float) -> Mask:
    """Return the component of gas that is a trachea and reaches highest; empty if none is."""
    parts, _ = ndimage.label(gas)
    volumes = np.bincount(parts[gas]) * scan.ml  # of thousands of parts, nearly all of a few voxels
    low, high = _VOLUME
    boxes = {part: box(parts == part) for part in np.flatnonzero((volumes > low) & (volumes < high)).tolist()}
    fits = [part for part, place in boxes.items() if _is_trachea(parts[place] == part, place, scan, midline)]
    return parts == (max(fits, key=lambda part: boxes[part][2].stop) if fits else -1)


def _is_trachea(part: Mask, place: tuple[slice, ...], scan: DownsampledScan, midline: float) -> bool:
    """Return whether a component is a long, slender tube that begins near the midline."""
    areas: NDArray[np.int64] = part.sum(axis=(0, 1))
    top = centre(part[:, :, -1], 0) + place[0].start
    dx, dy, dz = scan.spacing
    return bool(
        len(areas) * dz > _LENGTH
        and abs(top - midline) * dx < _OFF_MIDLINE
        and np.median(areas[areas > 0]) * dx * dy < _SECTION
    )
