"""A scan on a coarse grid with what is seen first: where lungs, checks and orientation start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .aerated import find_aerated
from .body import find_body
from .downsampling import Coarse, Mask, Spacing, coarsen


@dataclass(frozen=True)
class Overview:
    """What is seen first in a scan.

    Attributes:
        coarse: the scan in blocks of about 2 mm.
        body: the body, filled, on that grid (X', Y', Z').
        aerated: aerated lung, without its opacities; empty without a lung.
        airways: trachea and main bronchi with their walls.
    """

    coarse: Coarse
    body: Mask
    aerated: Mask
    airways: Mask


def look_over(hu: NDArray[Any], spacing: Spacing) -> Overview:
    """Finds body, aerated lung and airways.

    Args:
        hu: HU (X, Y, Z), int16 or float32, in LPS order: x to the patient's left, y to posterior, z
            to superior.
        spacing: voxel size along x, y, z in mm.

    Raises:
        ValueError: if `hu` is not a volume or the spacing is not three positive numbers.
    """
    coarse = coarsen(hu, spacing)
    body = find_body(coarse)
    return Overview(coarse, body, *find_aerated(coarse, body))
