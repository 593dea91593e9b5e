"""Read lung masks that the user provides."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .downsampling import Spacing, choose_steps, enlarge, reduce_mask
from .sides import LEFT, RIGHT, split_sides

_HOW = {"components": "the two components", "erosion": "two lungs that touch", "midline": "the middle of the image"}
_EXPECTED = "expected: 1 (right) and 2 (left), or one value for both lungs"


def read_codes(mask: NDArray[Any], spacing: Spacing) -> tuple[NDArray[np.uint8], list[str]]:
    """Return a lung mask with 1 for the right and 2 for the left lung.

    Args:
        mask: (X, Y, Z), LPS, 1 for the right and 2 for the left lung, or one other value for both.
        spacing: voxel size in mm.

    Returns:
        The mask as uint8 and what was done to it: the codes exchanged where 1 lies at the patient's
        left, as in Zenodo 3757476, or both lungs parted.

    Raises:
        ValueError: if the mask is no volume, is empty or holds other values.
    """
    if mask.ndim != 3:
        raise ValueError(f"the lung mask has shape {mask.shape}; expected: (X, Y, Z)")
    values = {float(value) for z in range(mask.shape[2]) for value in np.unique(mask[:, :, z])} - {0.0}
    if not values:
        raise ValueError(f"the lung mask is empty; {_EXPECTED}")
    if len(values) == 1:
        return _part(mask, spacing)
    if values != {RIGHT, LEFT}:
        found = ", ".join(f"{value:g}" for value in sorted(values)[:6])
        raise ValueError(f"the lung mask holds the values {found}; {_EXPECTED}")
    return _exchange(mask.astype(np.uint8, copy=False))


def _exchange(codes: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], list[str]]:
    """Make 1 the lung at the patient's right."""
    areas = np.array([[np.count_nonzero(plane == code) for plane in codes] for code in (RIGHT, LEFT)])
    right, left = areas @ np.arange(codes.shape[0]) / areas.sum(axis=1)
    if right < left:
        return codes, []
    exchanged = np.array([0, LEFT, RIGHT], np.uint8)[codes]
    return exchanged, ["The lung mask has 1 at the patient's left and 2 at the right; they were exchanged."]


def _part(mask: NDArray[Any], spacing: Spacing) -> tuple[NDArray[np.uint8], list[str]]:
    """Separate both lungs of a mask; where they meet is found on a downsampled grid."""
    steps = choose_steps(spacing)
    x, y, z = steps
    block = (spacing[0] * x, spacing[1] * y, spacing[2] * z)
    lungs = mask[::x, ::y, ::z] > 0  # samples keep the gap between lungs that nearly touch
    if not lungs.any():
        lungs = reduce_mask(mask > 0, steps)
    sides, how = split_sides(lungs, block)
    codes = np.zeros(mask.shape, np.uint8)
    for k in range(mask.shape[2]):
        codes[:, :, k] = enlarge(sides[:, :, k // z], steps, mask.shape) * (mask[:, :, k] > 0)
    return codes, [f"The lung mask does not tell right from left; they were parted by {_HOW[how]}."]
