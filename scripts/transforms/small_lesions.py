"""Remove lesions below a volume from a mask."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..anatomy.downsampling import ALL_NEIGHBOURS, in_voxels


def without_small_lesions(mask: NDArray[np.uint8], voxel_mm3: float, smallest_mm3: float) -> NDArray[np.uint8]:
    """Remove lesions below a volume from a mask (X, Y, Z) in {0, 1}, which itself stays as it is.

    Voxels that touch at a corner are connected. The work is done within the box around the
    infection, so a large scan with little infection needs little memory. A smallest volume of 0
    keeps every lesion.
    """
    if smallest_mm3 <= 0 or not mask.any():
        return mask
    (box,) = ndimage.find_objects(mask, max_label=1)
    cleaned = mask.copy(order="K")
    lesions, _ = ndimage.label(mask[box], ALL_NEIGHBOURS)
    large = np.bincount(lesions.ravel()) >= math.ceil(in_voxels(smallest_mm3, voxel_mm3))
    large[0] = False
    cleaned[box] = large[lesions]
    return cleaned
