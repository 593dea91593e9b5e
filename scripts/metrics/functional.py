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

from ..errors import SettingError
from .counts import OVERLAP_RATIOS, Counts, Rules, counts_at, counts_over_thresholds, prepare_maps, working_dtype

OVERLAP_MEASURES = tuple(OVERLAP_RATIOS)
MAP_MEASURES = ("mae", "e_measure", "s_measure")
MEASURES = OVERLAP_MEASURES + MAP_MEASURES
EPSILON = 2.0**-52  # MATLAB's eps, whatever the type in use
ALPHA = 0.5  # weight of the object part of the S-measure


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
            raise SettingError(f"measure is {name!r}; expected: {', '.join(MEASURES)}")


def _overlap(name: str, counts: Counts, rules: Rules) -> Tensor:
    """A ratio; by the toolbox's rules 0 where no pixel agrees, and the mean over thresholds."""
    value = OVERLAP_RATIOS[name](counts)
    return value if rules == "plain" else value.masked_fill(counts.tp == 0, 0.0).mean(-1)


def _absolute_error(prob: Tensor, target: Tensor) -> Tensor:
    return torch.abs(prob.to(working_dtype(prob.device)) - target.float()).mean((1, 2, 3))


def alignment(counts: Counts) -> Tensor:
    """Return the mean E-measure (B,) over 256 thresholds from their counts (B, 256).

    It is that of Fan et al., IJCAI 2018. At one threshold, with b the thresholded map, g the target
    and both centred at 0 by their means, xi = 2 b g / (b^2 + g^2 + eps) and E = sum((xi + 1)^2 / 4)
    / (HW - 1); 1 - b stands for the matrix where the target is empty, b where it fills the map. A
    binary map has but four different pixels. Hu et al. 2022 (Eq. 11) divide by HW; the released
    toolboxes by HW - 1, which is taken here so that figures compare. A perfect map reaches HW / (HW
    - 1), slightly more than 1, and an empty target costs at least the threshold 0, at which
    everything is lesion.
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


def structure(prob: Tensor, target: Tensor) -> Tensor:
    """Return the S-measure (B,) of prepared maps with alpha 0.5 (Fan et al., ICCV 2017).

    alpha * S_object + (1 - alpha) * S_region, not below 0; 1 - mean(prob) for an empty target,
    mean(prob) for one that fills the map. Standard deviations are the sample's (N - 1), as
    MATLAB's.
    """
    x = prob.squeeze(1).to(working_dtype(prob.device))
    g = target.squeeze(1)
    mean_target, mean_prediction = g.to(x.dtype).mean((1, 2)), x.mean((1, 2))
    # S_object: lesion should be uniformly high, the rest uniformly low
    objects = mean_target * _uniformity(x, g) + (1 - mean_target) * _uniformity(1 - x, ~g)
    score = (ALPHA * objects + (1 - ALPHA) * _region_part(x, g)).clamp(min=0)
    lesion = g.flatten(1)  # not by the mean: CUDA multiplies by 1 / n, which leaves less than 1 of n ones
    score = torch.where(lesion.any(1), score, 1 - mean_prediction)
    return torch.where(lesion.all(1), mean_prediction, score)


def _uniformity(x: Tensor, region: Tensor) -> Tensor:
    """Return O = 2 m / (m^2 + 1 + s + eps) with mean m and sample deviation s of x (B, H, W)."""
    n = region.sum((1, 2)).to(x.dtype)
    mean = x.where(region, 0).sum((1, 2)) / n.clamp(min=1)
    squares = (x - mean[:, None, None]).square().where(region, 0).sum((1, 2))
    deviation = (squares / (n - 1).clamp(min=1)).sqrt()
    return 2 * mean / (mean.square() + 1 + deviation + EPSILON)


def _region_part(x: Tensor, g: Tensor) -> Tensor:
    """Return S_region: the similarity of four blocks around the centroid, weighted by area."""
    below, right = _beyond_centroid(g.sum(2)), _beyond_centroid(g.sum(1))  # (B, H), (B, W)
    y = g.to(x.dtype)
    n = _block_sums(torch.ones_like(x), below, right)
    mean_x, mean_y = (_block_sums(v, below, right) / n.clamp(min=1) for v in (x, y))
    dx, dy = x - _spread(mean_x, below, right), y - _spread(mean_y, below, right)
    var_x, var_y, covariance = (
        _block_sums(v, below, right) / (n - 1).clamp(min=1) for v in (dx * dx, dy * dy, dx * dy)
    )
    numerator = 4 * mean_x * mean_y * covariance
    denominator = (mean_x.square() + mean_y.square()) * (var_x + var_y)
    similarity = numerator / (denominator + EPSILON)
    similarity = similarity.masked_fill((numerator == 0) & (denominator == 0), 1.0)
    return (similarity * n).sum((1, 2)) / n.sum((1, 2))


def _beyond_centroid(profile: Tensor) -> Tensor:
    """Lines of a profile (B, L) beyond its centre; whole numbers round half up, as MATLAB."""
    line = torch.arange(profile.shape[1], device=profile.device)
    n, moment = profile.sum(1, keepdim=True), (profile * line).sum(1, keepdim=True)
    centre = torch.div(2 * moment + n, (2 * n).clamp(min=1), rounding_mode="floor")
    return line > centre


def _block_sums(values: Tensor, below: Tensor, right: Tensor) -> Tensor:
    """Return the sums of (B, H, W) over the four blocks, (B, 2, 2)."""
    columns = torch.stack([values.where(side, 0).sum(2) for side in (~right[:, None], right[:, None])], 1)
    return torch.stack([columns.where(side, 0).sum(2) for side in (~below[:, None], below[:, None])], 1)


def _spread(blocks: Tensor, below: Tensor, right: Tensor) -> Tensor:
    """Return each pixel's block value, (B, 2, 2) to (B, H, W)."""
    top, bottom = (torch.where(right, row[:, 1:], row[:, :1])[:, None] for row in blocks.unbind(1))
    return torch.where(below[:, :, None], bottom, top)
