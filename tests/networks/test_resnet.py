"""The ResNet encoders against the published counts and strides."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scripts.networks.resnet import ResNetEncoder


@pytest.mark.parametrize(("depth", "count"), [(34, 21_284_672), (50, 23_508_032)])
def test_parameters_are_the_papers(depth: int, count: int) -> None:
    """ResNet-34 and -50 have 21,797,672 and 25,557,032 with their classifiers of 512 and 2048 by
    1000 classes."""
    with torch.device("meta"):
        encoder = ResNetEncoder(depth, 3, 64)
    assert sum(p.numel() for p in encoder.parameters()) == count


@pytest.mark.parametrize(
    ("output_stride", "strides"), [(32, (2, 4, 8, 16, 32)), (16, (2, 4, 8, 16, 16)), (8, (2, 4, 8, 8, 8))]
)
@pytest.mark.parametrize(("depth", "channels"), [(34, [4, 4, 8, 16, 32]), (50, [4, 16, 32, 64, 128])])
def test_maps(depth: int, channels: list[int], output_stride: int, strides: tuple[int, ...]) -> None:
    with torch.device("meta"):
        encoder = ResNetEncoder(depth, 1, 4, output_stride)
        maps = encoder(torch.empty(2, 1, 64, 128))
    assert encoder.channels == channels
    assert [m.shape for m in maps] == [(2, c, 64 // s, 128 // s) for c, s in zip(channels, strides, strict=True)]


@pytest.mark.parametrize(("output_stride", "dilations"), [(32, [1, 1, 1, 1]), (16, [1, 1, 1, 2]), (8, [1, 1, 2, 4])])
def test_a_stage_that_keeps_the_size_is_dilated(output_stride: int, dilations: list[int]) -> None:
    encoder = ResNetEncoder(50, 1, 4, output_stride)
    for stage, blocks, dilation in zip(encoder.stages, (3, 4, 6, 3), dilations, strict=True):
        kernels = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert [m.dilation for m in kernels] == [m.padding for m in kernels] == [(dilation, dilation)] * blocks


@pytest.mark.parametrize("base_width", [0, 2, 6, -4])
def test_bad_width_is_refused(base_width: int) -> None:
    with pytest.raises(ValueError, match=f"base_width is {base_width}"):
        ResNetEncoder(34, 1, base_width)
