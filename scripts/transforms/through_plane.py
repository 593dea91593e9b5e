"""Average probabilities over neighbouring slices: most lesions go on in the next ones.

A network that sees single slices decides each anew. The mean over a few millimetres mends marks
that one slice has and its neighbours have not, and gaps.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from ..anatomy.downsampling import in_voxels

_REACH = 3.0
"""Standard deviations to either side, beyond which the Gaussian is left out."""


def neighbour_weights(sigma_mm: float, spacing_mm: float) -> list[float]:
    """Return the weights of a slice and of its neighbours at growing distance, a Gaussian.

    The weights of a neighbour count on both sides; all together they are 1.

    Args:
        sigma_mm: standard deviation, 0 or more; 0: the slice alone.
        spacing_mm: from slice to slice, above 0.

    >>> [round(one, 3) for one in neighbour_weights(3.0, 5.0)]
    [0.667, 0.166]
    >>> neighbour_weights(3.0, 20.0), neighbour_weights(0.0, 1.0)
    ([1.0], [1.0])
    """
    if not sigma_mm:
        return [1.0]
    reach = math.floor(in_voxels(_REACH * sigma_mm, spacing_mm))
    heights = [math.exp(-0.5 * (k * spacing_mm / sigma_mm) ** 2) for k in range(1, reach + 1)]
    total = 1 + 2 * sum(heights)
    return [one / total for one in (1.0, *heights)]


class SliceMeans:
    """Average maps that come slice by slice; the first and last stand for what lies beyond them.

    Few maps are kept, and the bits do not depend on how many come at once.

    Args:
        weights: see `neighbour_weights`.
        count: how many maps will come.
    """

    def __init__(self, weights: Sequence[float], count: int) -> None:
        self._reach, self._count = len(weights) - 1, count
        self._weights = torch.tensor([*reversed(weights[1:]), *weights], dtype=torch.float32)
        self._kept: deque[Tensor] = deque(maxlen=len(self._weights))
        self._given = self._done = 0

    def add(self, one: Tensor) -> list[tuple[int, Tensor]]:
        """Take the next map; return index and mean of the slices that are known with it."""
        self._kept.append(one)
        self._given += 1
        known = self._count if self._given == self._count else self._given - self._reach
        found = [(index, self._mean(index)) for index in range(self._done, known)]
        self._done = max(self._done, known)
        return found

    def _mean(self, index: int) -> Tensor:
        first, around = self._given - len(self._kept), range(index - self._reach, index + self._reach + 1)
        maps = [self._kept[min(max(place, 0), self._count - 1) - first] for place in around]
        return torch.tensordot(self._weights.to(maps[0]), torch.stack(maps), dims=1) if self._reach else maps[0]
