from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

Maps = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture
def random_maps() -> Callable[..., Maps]:
    """Smooth 8-bit maps that span 0..1 and blobs that they partly match, both (B, 1, H, W)."""

    def make(batch: int = 3, height: int = 33, width: int = 46, seed: int = 0) -> Maps:
        rng = np.random.default_rng(seed)
        noise = gaussian_filter(rng.normal(size=(batch, 2, height, width)), (0, 0, 4, 4))
        field = noise[:, 0] + 0.7 * noise[:, 1]
        field -= field.min((1, 2), keepdims=True)
        eight_bit = np.round(255 * field / field.max((1, 2), keepdims=True)).astype(np.uint8)
        target = noise[:, :1] > np.quantile(noise[:, :1], 0.8, axis=(2, 3), keepdims=True)
        return torch.from_numpy(eight_bit[:, None]) / 255, torch.from_numpy(target).float()

    return make
