"""Find the part of a scan that a network sees: the box around the lungs."""

from __future__ import annotations

from math import ceil

from ..errors import UserError
from .downsampling import Mask, Spacing, box, in_voxels
from .lungs import Lungs
from .tissue import Tissues

FIELDS_OF_VIEW = ("scan", "lungs")

MARGIN_MM = 10.0
"""How far the box reaches beyond the lungs: what the mask misses of a consolidated border still
lies in it."""

Box = tuple[slice, slice, slice]


def is_cropped(field_of_view: str) -> bool:
    """Whether a network is shown the box around the lungs and not the whole scan.

    Raises:
        UserError: if the setting is neither "scan" nor "lungs".
    """
    if field_of_view not in FIELDS_OF_VIEW:
        raise UserError(f"field_of_view is {field_of_view!r}; expected: {', '.join(FIELDS_OF_VIEW)}")
    return field_of_view == "lungs"


def whole(shape: tuple[int, int, int]) -> Box:
    """Return the box that leaves nothing out."""
    x, y, z = shape
    return slice(0, x), slice(0, y), slice(0, z)


def find_box(seen: Tissues, lungs: Lungs) -> Box:
    """Find the box around both lungs, or around the body where the lungs are not plausible.

    Args:
        seen: the tissues of the scan.
        lungs: its lungs, found or given.

    Returns:
        Full-resolution voxels along x, y, z (LPS); the whole scan where there is no body either.
    """
    if lungs.plausible and lungs.mask.any():
        return _around(lungs.mask > 0, lungs.steps, lungs.spacing, lungs.shape)
    scan = seen.scan
    if not seen.body.any():
        return whole(scan.shape)
    x, y, z = (size / step for size, step in zip(scan.spacing, scan.steps, strict=True))
    return _around(seen.body, scan.steps, (x, y, z), scan.shape)


def _around(mask: Mask, steps: tuple[int, int, int], spacing: Spacing, shape: tuple[int, int, int]) -> Box:
    """Return the box of a mask on a grid of blocks, `MARGIN_MM` wider, in voxels."""
    sides = []
    for found, step, size, length in zip(box(mask), steps, spacing, shape, strict=True):
        margin = ceil(in_voxels(MARGIN_MM, size))
        sides.append(slice(max(found.start * step - margin, 0), min(found.stop * step + margin, length)))
    return sides[0], sides[1], sides[2]
