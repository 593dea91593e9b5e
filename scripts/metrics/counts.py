"""Overlap of a thresholded probability map with its target: counts and their ratios."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ..errors import SettingError

Rules = Literal["plain", "infnet_toolbox"]
THRESHOLDS = 256  # k / 255, k = 0..255: every step of an 8-bit map


class Counts(NamedTuple):
    """Pixel counts, integer tensors of one shape: (B,) at one threshold, (B, 256) over all of them.

    The ratios have that shape as well, float64 (float32 on devices without it).

    >>> Counts(*torch.tensor([2, 4, 3, 16])).dice()
    tensor(0.5714, dtype=torch.float64)
    """

    tp: Tensor  # pixels both predicted and in the target
    predicted: Tensor  # pixels at or above the threshold
    actual: Tensor  # pixels of the target
    size: Tensor  # pixels of the map

    def dice(self) -> Tensor:
        """2 tp / (predicted + actual); 1 where both are empty, 0 where one is."""
        value = _ratio(2 * self.tp, self.predicted + self.actual)
        return value.masked_fill(self.predicted + self.actual == 0, 1.0)

    def iou(self) -> Tensor:
        """Return tp / (predicted + actual - tp); 1 where both are empty, 0 where one is."""
        union = self.predicted + self.actual - self.tp
        return _ratio(self.tp, union).masked_fill(union == 0, 1.0)

    def sensitivity(self) -> Tensor:
        """Recall tp / actual (Hu et al. 2022, Eq. 9); NaN for an empty target."""
        return _ratio(self.tp, self.actual)

    def specificity(self) -> Tensor:
        """True negative rate tn / (tn + fp); NaN where the target fills the map."""
        return _ratio(self.size - self.predicted - self.actual + self.tp, self.size - self.actual)

    def precision(self) -> Tensor:
        """Return the precision tp / predicted (Hu et al. 2022, Eq. 10); NaN if predicted is 0."""
        return _ratio(self.tp, self.predicted)


OVERLAP_RATIOS: dict[str, Callable[[Counts], Tensor]] = {
    ratio.__name__: ratio
    for ratio in (Counts.dice, Counts.iou, Counts.sensitivity, Counts.specificity, Counts.precision)
}


WITHOUT_FLOAT64 = {"mps"}  # types of devices that have no float64


def working_dtype(device: torch.device) -> torch.dtype:
    """Return the type in which measures are computed: float64, or float32 on devices without it."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def check_rules(rules: str) -> None:
    """Raise ValueError for a name that is not a preset."""
    if rules not in get_args(Rules):
        raise SettingError(f"rules is {rules!r}; expected: {', '.join(get_args(Rules))}")


def check_probabilities(prob: Tensor) -> None:
    """Raise ValueError for values outside [0, 1], NaN included; it waits for the device."""
    check_range(*torch.aminmax(prob))


def check_range(low: Tensor, high: Tensor) -> None:
    """Raise ValueError if a prediction is outside of [0, 1]; it waits for the device."""
    if not bool((low >= 0) & (high <= 1)):
        raise ValueError(
            f"predictions range from {low:.4g} to {high:.4g}; expected: probabilities in [0, 1], after the sigmoid"
        )


def prepare_maps(prob: Tensor, target: Tensor, rules: Rules = "plain") -> tuple[Tensor, Tensor]:
    """Prepare maps (B, 1, H, W) for every measure: `prob` in [0, 1], `target` in {0, 1}, any types.

    "infnet_toolbox" stretches each prediction to 0..1 first (`min_max_stretch`).

    Returns:
        prob as float32, the type of an 8-bit step k / 255 that compares equal to its threshold, and
        target as bool; plain tensors.

    Raises:
        ValueError: for other shapes or unknown rules.
    """
    check_rules(rules)
    if prob.ndim != 4 or prob.shape[1] != 1 or prob.shape != target.shape:
        raise ValueError(f"prediction {tuple(prob.shape)}, target {tuple(target.shape)}; expected: both (B, 1, H, W)")
    prob, target = prob.as_subclass(Tensor).float().contiguous(), target.as_subclass(Tensor) > 0.5
    return (min_max_stretch(prob) if rules == "infnet_toolbox" else prob), target


def min_max_stretch(prob: Tensor) -> Tensor:
    """Return each map of (B, 1, H, W) scaled to reach 0 and 1, as the Inf-Net toolbox does.

    A constant map stays as it is, as with MATLAB's mapminmax. A healthy slice is forced to reach 1
    by this: use it to compare with figures that were made so, for nothing else.
    """
    low, high = prob.amin((1, 2, 3), keepdim=True), prob.amax((1, 2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (prob - low) / span, prob)


def counts_at(prob: Tensor, target: Tensor, threshold: float = 0.5) -> Counts:
    """Return the counts (B,) of prepared maps at one threshold, prob >= threshold being lesion."""
    predicted = prob >= threshold
    axes = (1, 2, 3)
    actual = target.sum(axes)
    size = torch.full_like(actual, target[0].numel())
    return Counts((predicted & target).sum(axes), predicted.sum(axes), actual, size)


def counts_over_thresholds(prob: Tensor, target: Tensor) -> Counts:
    """Return the counts (B, 256) of prepared maps at prob >= k / 255, k = 0..255.

    One histogram of the maps and its cumulative sum from above: work and memory grow with the
    pixels, not with 256 times as many.
    """
    steps = torch.arange(THRESHOLDS, device=prob.device, dtype=prob.dtype) / (THRESHOLDS - 1)
    step = torch.bucketize(prob.flatten(1), steps, right=True).sub_(1).clamp_(0, THRESHOLDS - 1)
    cell = step.add_(target.flatten(1) * THRESHOLDS)  # (B, HW), 0..511: background steps, then lesion steps
    histogram = torch.zeros(len(cell), 2 * THRESHOLDS, dtype=torch.int32, device=cell.device)
    histogram.scatter_add_(1, cell, torch.ones((), dtype=torch.int32, device=cell.device).expand_as(cell))
    above = histogram.view(-1, 2, THRESHOLDS).flip(-1).cumsum(-1).flip(-1)
    fp, tp = above.unbind(1)
    actual = tp[:, :1].expand_as(tp)  # nothing lies below the first threshold, 0
    return Counts(tp, tp + fp, actual, torch.full_like(tp, target[0].numel()))


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the quotient, NaN (0 / 0) where there is nothing to divide by."""
    dtype = working_dtype(numerator.device)
    return numerator.to(dtype) / denominator.to(dtype)
