"""Find the patient's body with the air inside of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .downsampling import DownsampledScan, Mask, chosen, dilate, erode, in_voxels, largest
from .hull import convex_hull

SKIN = -500  # HU: halfway between air and tissue
_THIN, _REACH = 4.0, 14.0  # mm: half of what is too thin for a body (table, blanket); how far skin lies from its core
_LUNG = (-940, -600)  # HU: median of lung that lies open to the border of a slice; the room's air is darker
_SMALLEST_OPEN = 1500.0  # mm^2 of such a lung; the crease between arm and chest is smaller
_BORDER = 10.0  # mm: a chest wall cut by the field of view ends no farther from it
_HUGGED = 0.3  # of such a lung lies in the convex hull of the body, of the table almost nothing


def find_body(scan: DownsampledScan) -> Mask:
    """Find the body with everything inside of it, without the table.

    Lungs that the field of view cuts are included.

    Tissue whose core survives an erosion, so that a table or a blanket that touches the skin falls
    away; then holes are filled in each axial slice, because the airways open to the room only along
    z.

    Returns:
        Body on the downsampled grid, (X', Y', Z'); empty where nothing is as thick as a body.
    """
    tissue = scan.hu > SKIN
    core = largest(erode(tissue, _THIN, scan.spacing))
    body = tissue & dilate(core, _REACH, scan.spacing)
    for z in np.flatnonzero(body.any(axis=(0, 1))):
        body[:, :, z] = _fill(body[:, :, z], scan.hu[:, :, z], scan.spacing)
    return body


def _fill(body: Mask, hu: NDArray[np.int16], spacing: tuple[float, float, float]) -> Mask:
    """Fill the holes of a slice, and what is open only at the border of the field of view."""
    parts, _ = ndimage.label(~body)
    outside = _at_the_border(parts)
    areas = np.bincount(parts.ravel()) * spacing[0] * spacing[1]
    for part in sorted(outside):
        here = parts == part
        low, high = _LUNG
        if areas[part] > _SMALLEST_OPEN and low < np.median(hu[here]) < high and _is_hugged(here, body, hu, spacing):
            outside.remove(part)
    room = chosen(parts, outside)
    return ~room | _lungs_open_to_the_room(room, body, hu, spacing)


def _lungs_open_to_the_room(room: Mask, body: Mask, hu: NDArray[np.int16], spacing: tuple[float, float, float]) -> Mask:
    """Find lung that is connected to the room's air in a slice.

    The field of view cuts the chest wall there, between two ribs.

    The convex hull of the body parts them, as the wall would.
    """
    low, high = _LUNG
    pixel = spacing[0] * spacing[1]
    lung = np.zeros_like(room)
    if np.count_nonzero(room & (hu > low)) * pixel <= _SMALLEST_OPEN / 2:  # no median above it can be there
        return lung
    pieces, _ = ndimage.label(room & convex_hull(body))
    areas = np.bincount(pieces.ravel()) * pixel
    near = 1 + int(in_voxels(_BORDER, max(spacing[:2])))
    for piece in sorted(_at_the_border(pieces, near)):  # a rim of cushion under the back does not lie there
        here = pieces == piece
        if areas[piece] > _SMALLEST_OPEN and low < np.median(hu[here]) < high:
            lung |= here
    return lung


def _at_the_border(parts: NDArray[np.int32], width: int = 1) -> set[int]:
    """Return the labelled parts of a slice that come close to a side of the field of view."""
    sides = (parts[:width], parts[-width:], parts[:, :width], parts[:, -width:])
    frame = np.concatenate([side.ravel() for side in sides])
    return set(np.unique(frame[frame > 0]).tolist())


def _is_hugged(part: Mask, body: Mask, hu: NDArray[np.int16], spacing: tuple[float, float, float]) -> bool:
    """Return whether a part lies within the convex hull of the body.

    A truncated lung does, the table does not.

    What lies beyond the hull must not be the room's air, which makes the median of a part with a
    large lung no room's.
    """
    hull = convex_hull(body)
    beyond = part & ~hull
    room = beyond.sum() * spacing[0] * spacing[1] > _SMALLEST_OPEN and np.median(hu[beyond]) <= _LUNG[0]
    return bool(part[hull].sum() > _HUGGED * part.sum()) and not room
