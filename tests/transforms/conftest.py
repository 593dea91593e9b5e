"""Bilinear interpolation written without torch, the oracle of resizing and of its inverse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture
def resize_weights() -> Callable[[int, int], np.ndarray]:
    """Matrix (new, old): sample positions (i + 0.5) * old / new - 0.5, clamped,
    weights of the two neighbours."""

    def weights(new: int, old: int) -> np.ndarray:
        position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(position).astype(int)
        matrix = np.zeros((new, old))
        matrix[np.arange(new), low] += 1 - (position - low)
        matrix[np.arange(new), np.minimum(low + 1, old - 1)] += position - low
        return matrix

    return weights
