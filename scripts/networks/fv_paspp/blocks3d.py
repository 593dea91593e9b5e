"""The block that networks for volumes are made of."""

from __future__ import annotations

from monai.networks.blocks import Convolution
from torch import nn


def conv_block_3d(in_channels: int, out_channels: int, kernel_size: int = 3) -> nn.Module:
    """Build convolution, batch normalisation and ReLU for (B, in_channels, H, W, D).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: edge length of the kernel, odd.
    """
    return Convolution(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=kernel_size,
        adn_ordering="NA",
        act="relu",
        norm="batch",
    )
