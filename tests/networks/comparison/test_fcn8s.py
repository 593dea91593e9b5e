"""Skips and upsampling of FCN-8s."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from scripts.networks.comparison.fcn8s import FCN8s, LearnedDoubling


def test_doubling_begins_as_bilinear_interpolation_class_by_class() -> None:
    x = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    found = LearnedDoubling(3)(x)
    torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])  # beyond the border lies 0


def test_three_scales_are_added_before_the_last_enlargement() -> None:
    torch.manual_seed(0)
    model, x = FCN8s(in_channels=2, out_channels=3, base_width=4).eval(), torch.randn(1, 2, 64, 96)
    maps = model.encoder(x)
    pools = [F.max_pool2d(one, 2) for one in maps[2:]]
    assert [tuple(one.shape[2:]) for one in pools] == [(8, 12), (4, 6), (2, 3)]
    deep = model.fc7(model.fc6(pools[2]).relu()).relu()
    sixteenth = model.up_7(model.score_7(deep)) + model.score_4(pools[1])
    eighth = model.up_4(sixteenth) + model.score_3(pools[0])
    expected = F.interpolate(eighth, scale_factor=8, mode="bilinear", align_corners=False)
    torch.testing.assert_close(model(x), expected)


def test_layers_that_were_fully_connected() -> None:
    with torch.device("meta"):
        model = FCN8s()
    assert model.fc6.weight.shape == (4096, 512, 7, 7)
    assert model.fc7.weight.shape == (4096, 4096, 1, 1)
