"""Structure measure (Fan et al., ICCV 2017) for batches of maps."""

import torch
from torch import Tensor

from .counts import working_dtype
from .enhanced_alignment import EPSILON

ALPHA = 0.5  # weight of the object part


def structure(prob: Tensor, target: Tensor) -> Tensor:
    """Return the S-measure (B,) of prepared maps with alpha 0.5 (Fan et al., ICCV 2017).

    alpha * S_object + (1 - alpha) * S_region, not below 0; 1 - mean(prob) for an empty target,
    mean(prob) for one that fills the map. Standard deviations are the sample's (N - 1), as
    MATLAB's.
    """
    x = prob.squeeze(1).to(working_dtype(prob.device))
    g = target.squeeze(1)
    mean_target, mean_prediction = g.to(x.dtype).mean((1, 2)), x.mean((1, 2))
    score = (ALPHA * _object_part(x, g, mean_target) + (1 - ALPHA) * _region_part(x, g)).clamp(min=0)
    score = torch.where(mean_target == 0, 1 - mean_prediction, score)
    return torch.where(mean_target == 1, mean_prediction, score)


def _object_part(x: Tensor, g: Tensor, mean_target: Tensor) -> Tensor:
    """S_object: lesion should be uniformly high, the rest uniformly low."""
    return mean_target * _uniformity(x, g) + (1 - mean_target) * _uniformity(1 - x, ~g)


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
