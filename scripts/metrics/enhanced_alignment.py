"""Enhanced-alignment measure (Fan et al., IJCAI 2018), averaged over the thresholds."""

import torch
from torch import Tensor

from .counts import Counts, working_dtype

EPSILON = 2.0**-52  # MATLAB's eps, whatever the type in use


def alignment(counts: Counts) -> Tensor:
    """Return the mean E-measure (B,) over 256 thresholds from their counts (B, 256).

    At one threshold, with b the thresholded map, g the target and both centred at 0 by their means,
    xi = 2 b g / (b^2 + g^2 + eps) and E = sum((xi + 1)^2 / 4) / (HW - 1); 1 - b stands for the
    matrix where the target is empty, b where it fills the map. A binary map has but four different
    pixels. Hu et al. 2022 (Eq. 11) divide by HW; the released toolboxes by HW - 1, which is taken
    here so that figures compare. A perfect map reaches HW / (HW - 1), slightly more than 1, and an
    empty target costs at least the threshold 0, at which everything is lesion.
    """
    dtype = working_dtype(counts.tp.device)
    tp, predicted, actual, size = (count.to(dtype) for count in counts)
    mean_prediction, mean_target = predicted / size, actual / size
    cells = (
        (tp, 1 - mean_prediction, 1 - mean_target),
        (predicted - tp, 1 - mean_prediction, -mean_target),
        (actual - tp, -mean_prediction, 1 - mean_target),
        (size - predicted - actual + tp, -mean_prediction, -mean_target),
    )
    total = sum(n * _enhanced(b, g) for n, b, g in cells)
    total = torch.where(actual == 0, size - predicted, torch.where(actual == size, predicted, total))
    return (total / (size - 1).clamp(min=1)).mean(-1)


def _enhanced(b: Tensor, g: Tensor) -> Tensor:
    """((xi + 1)^2) / 4 for centred values b and g."""
    xi = 2 * b * g / (b.square() + g.square() + EPSILON)
    return (xi + 1).square() / 4
