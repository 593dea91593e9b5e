"""PSPNet: pyramid pooling over a dilated ResNet-50.

Zhao, Shi, Qi, Wang, Jia: "Pyramid scene parsing network", CVPR 2017. Written from the paper.
"""

import torch
from torch import Tensor, nn

from ..base import SegmentationNetwork
from ..blocks import ConvBlock, resize_like
from ..registration import register
from ..resnet import ResNetEncoder

BINS = (1, 2, 3, 6)


class PyramidPooling(nn.Module):
    """The map and its means over 1, 2 x 2, 3 x 3 and 6 x 6 regions, reduced and resized."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(bins),
                # One region an image leaves a batch of one nothing to normalise over: that branch
                # has no norm.
                ConvBlock(in_channels, out_channels, kernel_size=1, bias=False)
                if bins > 1
                else nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel_size=1), nn.ReLU(inplace=True)),
            )
            for bins in BINS
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, h, w) to (B, in_channels + 4 * out_channels, h, w)."""
        return torch.cat([x] + [resize_like(branch(x), x) for branch in self.branches], dim=1)


def auxiliary_head(channels: int) -> nn.Sequential:
    """Build the head of the auxiliary map, on the third stage's features."""
    return nn.Sequential(ConvBlock(channels, channels // 4, bias=False), nn.Conv2d(channels // 4, 1, kernel_size=1))


@register("pspnet")
class PSPNet(SegmentationNetwork):
    """PSPNet with ResNet-50 at output stride 8 and an auxiliary map; 48,935,618 parameters."""

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        base_width: int = 64,
        dropout: float = 0.0,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__(base_width, dropout, mask_heads=1, deep_supervision=deep_supervision)
        self.encoder = ResNetEncoder(50, in_channels, base_width, output_stride=8)
        third, last = self.encoder.channels[3:]
        self.pyramid = PyramidPooling(last, last // len(BINS))
        self.merge = ConvBlock(2 * last, last // len(BINS), bias=False)
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(last // len(BINS), out_channels, kernel_size=1)
        self.auxiliary = auxiliary_head(third)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to logits; in training mode main map, auxiliary map."""
        features = self.encoder(image)
        main = resize_like(self.out(self.dropout(self.merge(self.pyramid(features[4])))), image)
        if not (self.training and self.deep_supervision):
            return main
        return torch.cat([main, resize_like(self.auxiliary(features[3]), image)], dim=1)
