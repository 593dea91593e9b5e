"""Distances between the surfaces of two masks, by MONAI."""

import math
from collections.abc import Sequence

from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from torch import Tensor

TOLERANCE_MM = 1.0


def surface_measures(predicted: Tensor, actual: Tensor, spacing: Sequence[float]) -> dict[str, float]:
    """Return the 95th percentile Hausdorff distance and surface Dice at 1 mm of one case.

    The field's convention for empty masks: there is no distance to a surface that is not there, so
    `hd95_mm` is NaN where either mask is empty; `surface_dice_1mm` is NaN where both are, 0 where
    one is. A single slice is measured in its plane.

    Args:
        predicted: (X, Y, Z), bool.
        actual: (X, Y, Z), bool.
        spacing: voxel size along X, Y, Z in mm.

    Returns:
        `hd95_mm` in mm and `surface_dice_1mm` in [0, 1].
    """
    if predicted.shape[-1] == 1:
        predicted, actual, spacing = predicted[..., 0], actual[..., 0], spacing[:2]
    empty = [not bool(mask.any()) for mask in (predicted, actual)]
    if any(empty):
        return {"hd95_mm": math.nan, "surface_dice_1mm": math.nan if all(empty) else 0.0}
    masks = predicted.cpu()[None, None], actual.cpu()[None, None]
    options = {"include_background": True, "spacing": [float(mm) for mm in spacing]}
    return {
        "hd95_mm": float(compute_hausdorff_distance(*masks, percentile=95, **options)),
        "surface_dice_1mm": float(compute_surface_dice(*masks, class_thresholds=[TOLERANCE_MM], **options)),
    }
