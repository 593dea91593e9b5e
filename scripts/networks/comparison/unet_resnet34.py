"""U-Net whose encoder is ResNet-34, as in comparisons with encoders that were trained elsewhere."""

from torch import Tensor, nn

from ..base import SegmentationNetwork, check_size
from ..blocks import DoubleConv, UpBlock, make_upsampling
from ..registration import register
from ..resnet import ResNetEncoder


@register("unet_resnet34")
class UNetResNet34(SegmentationNetwork):
    """U-Net with ResNet-34; 24,446,401 parameters. Height and width are multiples of 32."""

    def __init__(self, in_channels: int = 1, out_channels: int = 1, base_width: int = 64, dropout: float = 0.0) -> None:
        super().__init__(base_width, dropout, size_multiple=32)
        self.encoder = ResNetEncoder(34, in_channels, base_width)
        stem, first, second, third, last = self.encoder.channels
        self.decoder = nn.ModuleList(
            UpBlock(before, after, after, after)
            for before, after in ((last, third), (third, second), (second, first), (first, stem))
        )
        width = base_width // 2
        self.head = nn.Sequential(make_upsampling("transposed", stem, width), DoubleConv(width, width))
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(width, out_channels, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, in_channels, H, W) to logits (B, out_channels, H, W)."""
        check_size(image, self.size_multiple)
        features = self.encoder(image)
        x = features[4]
        for index, block in enumerate(self.decoder):
            x = block(x, features[3 - index])
        return self.out(self.dropout(self.head(x)))
