"""SegNet: values return to the places that pooling took them from, as torch's unpooling does."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from scripts.networks.comparison.segnet import unpool


def test_unpooling_is_torchs() -> None:
    x = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    pooled, places = F.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(unpool(pooled, places), F.max_unpool2d(pooled, places, 2))


def test_only_the_largest_of_a_window_is_kept() -> None:
    x = torch.tensor([[1.0, 2.0, 5.0, 0.0], [4.0, 3.0, 0.0, 6.0]])[None, None]
    found = unpool(*F.max_pool2d(x, 2, return_indices=True))
    assert found[0, 0].tolist() == [[0, 0, 0, 0], [4, 0, 0, 6]]
