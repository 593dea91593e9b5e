"""FPN: a feature pyramid whose levels are brought to one size and added.

Lin et al.: "Feature pyramid networks for object detection", CVPR 2017, by MONAI. The branch that
segments is that of Kirillov, Girshick, He, Dollar: "Panoptic feature pyramid networks", CVPR 2019,
written from the paper, with batch normalisation in place of group normalisation.
"""

import torch
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork
from torch import Tensor, nn

from ..base import SegmentationNetwork, check_size
from ..blocks import ConvBlock, resize_like
from ..registration import register
from ..resnet import ResNetEncoder


class PyramidLevel(nn.Sequential):
    """3x3 convolutions, each before a doubling of height and width, as many as the level's number.

    Level 0, the finest, has one convolution and no doubling.
    """

    def __init__(self, in_channels: int, out_channels: int, level: int) -> None:
        layers: list[nn.Module] = [ConvBlock(in_channels, out_channels, bias=False)]
        for step in range(level):
            if step:
                layers.append(ConvBlock(out_channels, out_channels, bias=False))
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        super().__init__(*layers)


@register("fpn")
class FPN(SegmentationNetwork):
    """FPN with ResNet-34; 25,509,441 parameters. Height and width are multiples of 32."""

    def __init__(self, in_channels: int = 1, out_channels: int = 1, base_width: int = 64, dropout: float = 0.0) -> None:
        super().__init__(base_width, dropout, size_multiple=32)
        self.encoder = ResNetEncoder(34, in_channels, base_width)
        self.pyramid = FeaturePyramidNetwork(2, self.encoder.channels[1:], 4 * base_width)
        self.levels = nn.ModuleList(PyramidLevel(4 * base_width, 2 * base_width, level) for level in range(4))
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(2 * base_width, out_channels, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, in_channels, H, W) to logits (B, out_channels, H, W)."""
        check_size(image, self.size_multiple)
        features = self.encoder(image)
        named: dict[str, Tensor] = {}
        for index, one in enumerate(features[1:]):
            named[str(index)] = one
        pyramid = list(self.pyramid(named).values())
        merged = torch.zeros_like(pyramid[0][:, : self.out.in_channels])
        for index, level in enumerate(self.levels):
            merged = merged + level(pyramid[index])
        return resize_like(self.out(self.dropout(merged)), image)
