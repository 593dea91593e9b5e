"""The measures of Hu et al. 2022 (section 4.2) as functions: (B, 1, H, W) in, (B,) out, on the same device.

Nothing here waits for the device or copies to the CPU, and nothing loops over pixels, images or thresholds.

Two sets of rules. "plain": overlap at one threshold, maps as they are. "infnet_toolbox", for figures beside those
of Inf-Net and CARes-UNet only: each map is stretched to 0..1 first, overlap measures are means over the 256
thresholds k / 255, and are 0 wherever not a single pixel agrees, an empty target included.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scripts.metrics.counts import (
    OVERLAP_RATIOS,
    Counts,
    Rules,
    counts_at,
    counts_over_thresholds,
    prepare_maps,
    working_dtype,
)
from scripts.metrics.enhanced_alignment import alignment, e_measure
from scripts.metrics.structure import s_measure, structure

OVERLAP_MEASURES = tuple(OVERLAP_RATIOS)
MAP_MEASURES = ("mae", "e_measure", "s_measure")
MEASURES = OVERLAP_MEASURES + MAP_MEASURES


def dice(prob: Tensor, target: Tensor, *, threshold: float = 0.5, rules: Rules = "plain") -> Tensor:
    """Dice coefficient of each map; empty against empty is 1, empty against something 0.

    Args:
        prob: (B, 1, H, W), range [0, 1].
        target: (B, 1, H, W), {0, 1}.
        threshold: prob >= threshold is lesion; unused by "infnet_toolbox".
        rules: see the module.

    Returns:
        (B,), float64 (float32 on MPS).

    Raises:
        ValueError: for other shapes or unknown rules.
    """
    return _overlap("dice", prob, target, threshold, rules)


def sensitivity(prob: Tensor, target: Tensor, *, threshold: float = 0.5, rules: Rules = "plain") -> Tensor:
    """Sensitivity of each map, NaN for an empty target; arguments, result and errors as `dice`."""
    return _overlap("sensitivity", prob, target, threshold, rules)


def specificity(prob: Tensor, target: Tensor, *, threshold: float = 0.5, rules: Rules = "plain") -> Tensor:
    """Specificity of each map, NaN where the target fills it; arguments, result and errors as `dice`."""
    return _overlap("specificity", prob, target, threshold, rules)


def precision(prob: Tensor, target: Tensor, *, threshold: float = 0.5, rules: Rules = "plain") -> Tensor:
    """Precision of each map, NaN for an empty prediction; arguments, result and errors as `dice`."""
    return _overlap("precision", prob, target, threshold, rules)


def mean_absolute_error(prob: Tensor, target: Tensor, *, rules: Rules = "plain") -> Tensor:
    """Mean of |prob - target| over the pixels of each soft map; arguments, result and errors as `dice`."""
    return _absolute_error(*prepare_maps(prob, target, rules))


def dice_over_thresholds(prob: Tensor, target: Tensor, *, rules: Rules = "plain") -> Tensor:
    """Dice of each map at the 256 thresholds k / 255.

    Args:
        prob: (B, 1, H, W), range [0, 1].
        target: (B, 1, H, W), {0, 1}.
        rules: see the module.

    Returns:
        (B, 256); `mean_and_max_dice` makes of it what the Inf-Net tables report.

    Raises:
        ValueError: for other shapes or unknown rules.
    """
    counts = counts_over_thresholds(*prepare_maps(prob, target, rules))
    return _ratio_by_rules("dice", counts, rules)


def mean_and_max_dice(curves: Tensor) -> tuple[Tensor, Tensor]:
    """Mean Dice and max Dice of a set as the Inf-Net toolbox defines them.

    Both belong to the mean curve of the set: one threshold for all images, not the best of each.

    Args:
        curves: (B, 256), Dice of each map at each threshold.

    Returns:
        Two scalars.
    """
    curve = curves.mean(0)
    return curve.mean(), curve.max()


def measure_all(prob: Tensor, target: Tensor, *, threshold: float = 0.5, rules: Rules = "plain") -> dict[str, Tensor]:
    """Every measure of `MEASURES` by its name, each (B,); one histogram serves all that need it.

    Arguments and errors as `dice`.
    """
    prob, target = prepare_maps(prob, target, rules)
    curve = counts_over_thresholds(prob, target)
    counts = counts_at(prob, target, threshold) if rules == "plain" else curve
    values = {name: _mean_over_thresholds(_ratio_by_rules(name, counts, rules)) for name in OVERLAP_MEASURES}
    maps = (_absolute_error(prob, target), alignment(curve), structure(prob, target))
    return values | dict(zip(MAP_MEASURES, maps, strict=True))


def measure(name: str, prob: Tensor, target: Tensor, *, threshold: float = 0.5, rules: Rules = "plain") -> Tensor:
    """The measure of that name, (B,); the other arguments as `dice`.

    Raises:
        ValueError: for a name not in `MEASURES`, other shapes or unknown rules.
    """
    if name in OVERLAP_RATIOS:
        return _overlap(name, prob, target, threshold, rules)
    functions = dict(zip(MAP_MEASURES, (mean_absolute_error, e_measure, s_measure), strict=True))
    if name not in functions:
        raise ValueError(f"measure is {name!r}; accepted: {', '.join(MEASURES)}")
    return functions[name](prob, target, rules=rules)


def _overlap(name: str, prob: Tensor, target: Tensor, threshold: float, rules: Rules) -> Tensor:
    prob, target = prepare_maps(prob, target, rules)
    counts = counts_at(prob, target, threshold) if rules == "plain" else counts_over_thresholds(prob, target)
    return _mean_over_thresholds(_ratio_by_rules(name, counts, rules))


def _ratio_by_rules(name: str, counts: Counts, rules: Rules) -> Tensor:
    """The ratio; under the toolbox's rules 0 where no pixel agrees, whatever the target."""
    value = OVERLAP_RATIOS[name](counts)
    return value if rules == "plain" else value.masked_fill(counts.tp == 0, 0.0)


def _mean_over_thresholds(values: Tensor) -> Tensor:
    """(B, 256) to (B,); (B,), made at one threshold, stays."""
    return values.mean(-1) if values.ndim == 2 else values


def _absolute_error(prob: Tensor, target: Tensor) -> Tensor:
    return torch.abs(prob.to(working_dtype(prob.device)) - target.float()).mean((1, 2, 3))
