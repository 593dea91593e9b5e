"""The measures of Hu et al. 2022 (section 4.2) as functions: (B, 1, H, W) to (B,).

Nothing here waits for the device or copies to the CPU, and nothing loops over pixels, images or
thresholds.

Two sets of rules. "plain": overlap at one threshold, maps as they are. "infnet_toolbox", for
figures beside those of Inf-Net and CARes-UNet only: each map is stretched to 0..1 first, overlap
measures are means over the 256 thresholds k / 255, and are 0 wherever not a single pixel agrees, an
empty target included.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial

import torch
from torch import Tensor

from .counts import OVERLAP_RATIOS, Counts, Rules, counts_at, counts_over_thresholds, prepare_maps, working_dtype
from .enhanced_alignment import alignment
from .structure import structure

OVERLAP_MEASURES = tuple(OVERLAP_RATIOS)
MAP_MEASURES = ("mae", "e_measure", "s_measure")
MEASURES = OVERLAP_MEASURES + MAP_MEASURES


def measure(name: str, prob: Tensor, target: Tensor, *, threshold: float = 0.5, rules: Rules = "plain") -> Tensor:
    """Return one measure of each map; NaN where it is a ratio without a denominator.

    Dice and IoU of empty against empty are 1, of empty against something 0.

    Args:
        name: one of `MEASURES`.
        prob: (B, 1, H, W), range [0, 1].
        target: (B, 1, H, W), {0, 1}.
        threshold: prob >= threshold is lesion; unused by "infnet_toolbox".
        rules: see the module.

    Returns:
        (B,), float64 (float32 on MPS).

    Raises:
        ValueError: for an unknown name, other shapes or unknown rules.
    """
    return measure_all(prob, target, names=(name,), threshold=threshold, rules=rules)[name]


dice, iou, sensitivity, specificity, precision, mean_absolute_error, e_measure, s_measure = (
    partial(measure, name) for name in MEASURES
)


def measure_all(
    prob: Tensor, target: Tensor, *, names: Sequence[str] = MEASURES, threshold: float = 0.5, rules: Rules = "plain"
) -> dict[str, Tensor]:
    """Return the measures `names` in that order, each as `measure` gives it, from one histogram."""
    check_names(names)
    prob, target = prepare_maps(prob, target, rules)
    curve = cache(lambda: counts_over_thresholds(prob, target))
    counts = cache(lambda: counts_at(prob, target, threshold)) if rules == "plain" else curve
    on_maps: dict[str, Callable[[], Tensor]] = {
        "mae": lambda: _absolute_error(prob, target),
        "e_measure": lambda: alignment(curve()),
        "s_measure": lambda: structure(prob, target),
    }
    return {name: on_maps[name]() if name in on_maps else _overlap(name, counts(), rules) for name in names}


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError for a name that is not in `MEASURES`."""
    for name in names:
        if name not in MEASURES:
            raise ValueError(f"measure is {name!r}; expected: {', '.join(MEASURES)}")


def _overlap(name: str, counts: Counts, rules: Rules) -> Tensor:
    """A ratio; by the toolbox's rules 0 where no pixel agrees, and the mean over thresholds."""
    value = OVERLAP_RATIOS[name](counts)
    return value if rules == "plain" else value.masked_fill(counts.tp == 0, 0.0).mean(-1)


def _absolute_error(prob: Tensor, target: Tensor) -> Tensor:
    return torch.abs(prob.to(working_dtype(prob.device)) - target.float()).mean((1, 2, 3))
