"""Volumes as batches of slices, a bounded number of pixels at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

MAX_PIXELS = 2**21  # eight slices of 512 x 512: all measures at once then need some 300 MB


def batch_to_slices(batch: Tensor) -> Tensor:
    """Return the slices of a batch, without a copy for a single volume.

    A batch (B, C, H, W) is returned as it is; of (B, C, X, Y, Z) the last axis counts the slices:
    (B * Z, C, X, Y), volume after volume. ValueError for another number of axes.
    """
    if batch.ndim == 4:
        return batch
    if batch.ndim != 5:
        raise ValueError(f"batch has the shape {tuple(batch.shape)}; expected: (B, C, H, W) or (B, C, X, Y, Z)")
    return batch.movedim(-1, 1).flatten(0, 1)


def case_to_slices(case: Tensor) -> Tensor:
    """Return the slices (Z, 1, X, Y) of one case, plain tensor without a copy.

    It is a slice (1, H, W) or (1, 1, H, W), or a volume (1, X, Y, Z) or (1, 1, X, Y, Z); ValueError
    for another shape.
    """
    case = case.as_subclass(Tensor)
    is_batch = case.ndim == 5 or (case.ndim == 4 and case.shape[1] == 1)  # no scan is one voxel wide
    batch = case if is_batch else case[None]
    if batch.ndim not in (4, 5) or batch.shape[:2] != (1, 1):
        raise ValueError(f"case has the shape {tuple(case.shape)}; expected: (1, H, W), (1, X, Y, Z), (1, 1, X, Y, Z)")
    return batch_to_slices(batch)


def per_slice(
    function: Callable[[Tensor, Tensor], Tensor], prob: Tensor, target: Tensor, max_pixels: int = MAX_PIXELS
) -> Tensor:
    """Apply a function to slices (B, 1, H, W), some `max_pixels` or one at a time; join results."""
    step = max(1, max_pixels // max(1, prob[0].numel()))
    return torch.cat([function(p, t) for p, t in zip(prob.split(step), target.split(step), strict=True)])
