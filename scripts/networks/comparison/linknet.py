"""LinkNet: a decoder that adds, rather than concatenates, what the encoder saw.

Chaurasia, Culurciello: "LinkNet: Exploiting encoder representations for efficient semantic
segmentation", VCIP 2017 (arXiv 1707.03718). Written from the paper, with ResNet-34 in place of
ResNet-18.
"""

from torch import Tensor, nn

from ..base import SegmentationNetwork, check_size
from ..blocks import ConvBlock, DoublingConv
from ..registration import register
from ..resnet import ResNetEncoder
from .ce_net import DecoderBlock


@register("linknet")
class LinkNet(SegmentationNetwork):
    """LinkNet with ResNet-34; 21,617,121 parameters. Height and width are multiples of 32."""

    def __init__(self, in_channels: int = 1, out_channels: int = 1, base_width: int = 64, dropout: float = 0.0) -> None:
        super().__init__(base_width, dropout, size_multiple=32)
        self.encoder = ResNetEncoder(34, in_channels, base_width)
        _, first, second, third, last = self.encoder.channels
        self.decoder = nn.ModuleList(
            [DecoderBlock(last, third), DecoderBlock(third, second), DecoderBlock(second, first)]
        )
        width = base_width // 2
        self.head = nn.Sequential(DecoderBlock(first, width), ConvBlock(width, width))
        self.dropout = nn.Dropout2d(dropout)
        self.out = DoublingConv(width, out_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, in_channels, H, W) to logits (B, out_channels, H, W)."""
        check_size(image, self.size_multiple)
        features = self.encoder(image)
        x = features[4]
        for index, block in enumerate(self.decoder):
            x = block(x) + features[3 - index]
        return self.out(self.dropout(self.head(x)))
