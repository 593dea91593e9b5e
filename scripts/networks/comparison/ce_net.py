"""CE-Net: a U-Net with dense atrous convolution (DAC) and multi-kernel pooling (RMP).

Gu et al.: "CE-Net: Context encoder network for 2D medical image segmentation", IEEE TMI 2019.
Written from the paper; that the convolutions of the DAC's branches are shared follows the authors'
description of their model.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ..base import SegmentationNetwork, check_size
from ..blocks import ConvBlock, resize_like
from ..registration import register
from ..resnet import ResNetEncoder

KERNELS = (2, 3, 5, 6)  # of the RMP


class DenseAtrousConvolution(nn.Module):
    """DAC: x + four branches with receptive fields of 3, 7, 9 and 19 pixels.

    One 3x3 convolution for each of the dilations 1, 3 and 5 and one 1x1 convolution serve all
    branches.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.middle = nn.Conv2d(channels, channels, kernel_size=3, padding=3, dilation=3)
        self.far = nn.Conv2d(channels, channels, kernel_size=3, padding=5, dilation=5)
        self.point = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, h, w) to the same shape."""
        near = self.near(x)
        middle = self.middle(near)
        first, second = torch.relu(near), torch.relu(self.point(self.middle(x)))
        third, fourth = torch.relu(self.point(middle)), torch.relu(self.point(self.far(middle)))
        return x + first + second + third + fourth


class ResidualMultiKernelPooling(nn.Module):
    """RMP: the map and one channel per max-pool of 2, 3, 5, 6 pixels, by one 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pools = nn.ModuleList(nn.MaxPool2d(kernel_size) for kernel_size in KERNELS)
        self.project = nn.Conv2d(channels, 1, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, h, w), h and w from 6 on, to (B, channels + 4, h, w)."""
        return torch.cat([resize_like(self.project(pool(x)), x) for pool in self.pools] + [x], dim=1)


class DecoderBlock(nn.Sequential):
    """1x1 convolution to a quarter of the channels, 3x3 transposed of stride 2, 1x1."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        width = in_channels // 4
        super().__init__(
            ConvBlock(in_channels, width, kernel_size=1),
            nn.ConvTranspose2d(width, width, kernel_size=3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            ConvBlock(width, out_channels, kernel_size=1),
        )


@register("ce_net")
class CENet(SegmentationNetwork):
    """CE-Net with ResNet-34; 28,996,821 parameters."""

    def __init__(self, in_channels: int = 1, out_channels: int = 1, base_width: int = 64, dropout: float = 0.0) -> None:
        super().__init__(base_width, dropout, size_multiple=32)
        self.smallest = self.size_multiple * max(KERNELS)
        self.encoder = ResNetEncoder(34, in_channels, base_width)
        channels = self.encoder.channels[1:]
        self.context = nn.Sequential(DenseAtrousConvolution(channels[3]), ResidualMultiKernelPooling(channels[3]))
        widths = [channels[3] + len(KERNELS), channels[2], channels[1], channels[0], channels[0]]
        self.decoder = nn.ModuleList(DecoderBlock(before, after) for before, after in pairwise(widths))
        self.head = nn.Sequential(
            nn.ConvTranspose2d(base_width, base_width // 2, kernel_size=4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(base_width // 2, base_width // 2, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(base_width // 2, out_channels, kernel_size=3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Map the image, at least 192 x 192 for the RMP's largest kernel, to logits."""
        check_size(image, self.size_multiple, self.smallest)
        features = self.encoder(image)
        x = self.context(features[4])
        for index, block in enumerate(self.decoder):
            x = block(x)
            if index < 3:
                x = x + features[3 - index]
        return self.out(self.dropout(self.head(x)))
