"""Rates and widths of DeepLabv3+."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scripts.networks.blocks import SeparableBlock
from scripts.networks.comparison.deeplabv3plus import ASPP, DeepLabV3Plus


def test_aspp_looks_as_far_as_its_rates() -> None:
    """Of a single bright pixel the branches see the centre, 9 pixels at 6, 12 and 18,
    and the whole image."""
    torch.manual_seed(0)
    module, x = ASPP(1, 2).double().eval(), torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    x[0, 0, 20, 20] = 1
    for branch, rate in zip(module.branches[1:4], (6, 12, 18), strict=True):
        seen = branch[0](x)[0, 0].nonzero()
        assert sorted({abs(int(v) - 20) for v in seen.flatten()}) == [0, rate]
        assert len(seen) == 9
    mean = module.branches[4][:2](x)
    torch.testing.assert_close(
        mean.flatten(), module.branches[4][1].weight.flatten() / 41**2 + module.branches[4][1].bias
    )


def test_decoder_joins_the_first_stage_reduced_to_48() -> None:
    with torch.device("meta"):
        model = DeepLabV3Plus()
    assert model.low[0].weight.shape == (48, 256, 1, 1)
    first, second = model.decoder
    assert isinstance(first, SeparableBlock)
    assert (first[0].in_channels, first[1][0].out_channels) == (304, 256)
    assert (second[0].in_channels, second[1][0].out_channels) == (256, 256)
    seen: list[torch.Size] = []
    model.decoder.register_forward_pre_hook(lambda _module, args: seen.append(args[0].shape))
    with torch.device("meta"):
        model(torch.empty(2, 1, 256, 256))
    assert seen == [(2, 304, 64, 64)]


def test_separable_block_convolves_each_channel_alone() -> None:
    block = SeparableBlock(3, 5, dilation=2)
    kinds = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.groups, m.kernel_size, m.dilation) for m in kinds] == [(3, (3, 3), (2, 2)), (1, (1, 1), (1, 1))]


def test_stride_8_keeps_finer_maps_with_dilations_twice_as_large() -> None:
    with torch.device("meta"):
        model = DeepLabV3Plus(base_width=8, output_stride=8)
        features = model.encoder(torch.empty(1, 1, 128, 64))
    assert features[4].shape[2:] == (16, 8)
    assert [branch[0].dilation for branch in model.aspp.branches[1:4]] == [(12, 12), (24, 24), (36, 36)]


def test_another_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="output_stride is 32; expected: 16 or 8"):
        DeepLabV3Plus(output_stride=32)
