"""DeepLabv3+: atrous spatial pyramid pooling over ResNet-50, and a small decoder.

Chen, Zhu, Papandreou, Schroff, Adam: "Encoder-decoder with atrous separable convolution for
semantic image segmentation", ECCV 2018. Written from the paper.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import SettingError
from ..base import SegmentationNetwork
from ..blocks import ConvBlock, SeparableBlock, resize_like
from ..registration import register
from ..resnet import ResNetEncoder

RATES = {16: (6, 12, 18), 8: (12, 24, 36)}  # output stride: dilations of the pyramid


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, three dilated separable convolutions, image mean."""

    def __init__(self, in_channels: int, out_channels: int, rates: Sequence[int] = RATES[16]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                ConvBlock(in_channels, out_channels, kernel_size=1, bias=False),
                *(SeparableBlock(in_channels, out_channels, dilation=rate) for rate in rates),
                # No norm here: of a batch of one there would be a single value to normalise.
                nn.Sequential(
                    nn.AdaptiveAvgPool2d(1), nn.Conv2d(in_channels, out_channels, kernel_size=1), nn.ReLU(inplace=True)
                ),
            ]
        )
        self.merge = ConvBlock(len(self.branches) * out_channels, out_channels, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, h, w) to (B, out_channels, h, w)."""
        return self.merge(torch.cat([resize_like(branch(x), x) for branch in self.branches], dim=1))


@register("deeplabv3plus")
class DeepLabV3Plus(SegmentationNetwork):
    """DeepLabv3+ with ResNet-50; 26,671,057 parameters. Images of any size.

    Pyramid and decoder have 4 times the base width, the low-level features 3/4 (48 of 64 in the
    paper). `output_stride`, the size of the image over that of the coarsest map, is 16, or 8 with
    pyramid dilations twice as large, as in the paper.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        base_width: int = 64,
        dropout: float = 0.0,
        output_stride: int = 16,
    ) -> None:
        super().__init__(base_width, dropout)
        if output_stride not in RATES:
            raise SettingError(f"output_stride is {output_stride}; expected: 16 or 8")
        width, low = 4 * base_width, 3 * base_width // 4
        self.encoder = ResNetEncoder(50, in_channels, base_width, output_stride)
        self.aspp = ASPP(self.encoder.channels[4], width, RATES[output_stride])
        self.low = ConvBlock(self.encoder.channels[1], low, kernel_size=1, bias=False)
        self.decoder = nn.Sequential(SeparableBlock(width + low, width), SeparableBlock(width, width))
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(width, out_channels, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, in_channels, H, W) to logits (B, out_channels, H, W)."""
        features = self.encoder(image)
        low = self.low(features[1])  # at H / 4
        merged = self.decoder(torch.cat([resize_like(self.aspp(features[4]), low), low], dim=1))
        return resize_like(self.out(self.dropout(merged)), image)
