"""Segment body, aerated lung and airways of a downsampled scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .aerated import WALL, find_aerated
from .body import find_body
from .downsampling import DownsampledScan, Mask, Spacing, downsample, erode


@dataclass(frozen=True)
class Tissues:
    """Hold a downsampled scan with its body, aerated lung and airways.

    Attributes:
        scan: the scan in blocks of about 2 mm.
        body: the body, filled, on that grid (X', Y', Z').
        inner: the body without `WALL` below the skin, where lung and its opacities lie.
        aerated: aerated lung, without its opacities; empty without a lung.
        airways: trachea and main bronchi with their walls.
    """

    scan: DownsampledScan
    body: Mask
    inner: Mask
    aerated: Mask
    airways: Mask


def segment_tissue(hu: NDArray[Any], spacing: Spacing) -> Tissues:
    """Segment body, aerated lung and airways.

    Args:
        hu: HU (X, Y, Z), int16 or float32, in LPS order: x to the patient's left, y to posterior, z
            to superior.
        spacing: voxel size along x, y, z in mm.

    Raises:
        ValueError: if `hu` is not a volume or the spacing is not three positive numbers.
    """
    scan = downsample(hu, spacing)
    body = find_body(scan)
    inner = erode(body, WALL, scan.spacing)
    return Tissues(scan, body, inner, *find_aerated(scan, body, inner))
