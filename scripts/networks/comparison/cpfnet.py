"""CPFNet: global pyramid guidance (GPG) of skips, scale-aware pyramid fusion (SAPF).

Feng et al.: "CPFNet: Context pyramid fusion network for medical image segmentation", IEEE TMI 2020.
Written from the paper.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import SegmentationNetwork
from ..blocks import ConvBlock, SeparableBlock, resize_like
from ..registration import register
from ..resnet import ResNetEncoder

SCALES = (1, 2, 4)  # dilations of the SAPF


class GlobalPyramidGuidance(nn.Module):
    """GPG: a level united with all coarser ones, through one dilated convolution per level."""

    def __init__(self, in_channels: list[int]) -> None:
        super().__init__()
        width, levels = in_channels[0], len(in_channels)
        self.reduce = nn.ModuleList(ConvBlock(channels, width, bias=False) for channels in in_channels)
        self.branches = nn.ModuleList(SeparableBlock(levels * width, width, dilation=2**i) for i in range(levels))
        self.merge = ConvBlock(levels * width, width, kernel_size=1, bias=False)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map levels (B, c_i, h_i, w_i), finest first, to (B, c_1, h_1, w_1)."""
        reduced: list[Tensor] = []
        for index, reduce in enumerate(self.reduce):
            reduced.append(resize_like(reduce(levels[index]), levels[0]))
        united = torch.cat(reduced, dim=1)
        return self.merge(torch.cat([branch(united) for branch in self.branches], dim=1))


class ScaleSelection(nn.Module):
    """a * x + (1 - a) * y, where a (B, 1, h, w) is a softmax over two maps of x and y."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels // 2, kernel_size=1, bias=False)
        self.second = ConvBlock(channels, channels // 2, kernel_size=1, bias=False)
        self.attention = nn.Conv2d(channels, 2, kernel_size=3, padding=1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Map x and y (B, channels, h, w) to the same shape."""
        weights = torch.softmax(self.attention(torch.cat([self.first(x), self.second(y)], dim=1)), dim=1)
        return weights[:, :1] * x + weights[:, 1:] * y


class ScaleAwarePyramidFusion(nn.Module):
    """SAPF: a 3x3 convolution at three dilations, whose results are selected pixel by pixel.

    The result is gamma * selected + (1 - gamma) * x, gamma from 0 on.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scales = list(SCALES)
        self.shared = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in SCALES)
        self.near = ScaleSelection(channels)
        self.far = ScaleSelection(channels)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, h, w) to the same shape, values >= 0."""
        scales: list[Tensor] = []
        for index, norm in enumerate(self.norms):
            dilation = self.scales[index]
            scale = F.conv2d(x, self.shared.weight, padding=dilation, dilation=dilation)
            scales.append(torch.relu(norm(scale)))
        selected = self.far(self.near(scales[0], scales[1]), scales[2])
        return torch.relu(self.gamma * selected + (1 - self.gamma) * x)


class DecoderBlock(nn.Sequential):
    """3x3 convolution, 1x1 convolution to the channels of the next level."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            ConvBlock(in_channels, in_channels, bias=False),
            ConvBlock(in_channels, out_channels, kernel_size=1, bias=False),
        )


@register("cpfnet")
class CPFNet(SegmentationNetwork):
    """CPFNet with ResNet-34; 31,577,254 parameters. Images of any size."""

    def __init__(self, in_channels: int = 1, out_channels: int = 1, base_width: int = 64, dropout: float = 0.0) -> None:
        super().__init__(base_width, dropout)
        self.encoder = ResNetEncoder(34, in_channels, base_width)
        channels = self.encoder.channels[1:]
        self.fusion = ScaleAwarePyramidFusion(channels[3])
        self.guidance = nn.ModuleList(GlobalPyramidGuidance(channels[level:]) for level in (2, 1, 0))
        self.decoder = nn.ModuleList(DecoderBlock(channels[level + 1], channels[level]) for level in (2, 1, 0))
        self.last = DecoderBlock(channels[0], base_width)
        self.head = ConvBlock(base_width, base_width // 2, bias=False)
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(base_width // 2, out_channels, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, in_channels, H, W) to logits (B, out_channels, H, W)."""
        features = self.encoder(image)
        x = self.fusion(features[4])
        for index, (guidance, block) in enumerate(zip(self.guidance, self.decoder)):  # noqa: B905, TorchScript
            guided = guidance(features[3 - index :])
            x = torch.relu(resize_like(block(x), guided) + guided)
        x = resize_like(self.last(x), features[0]) + features[0]
        return resize_like(self.out(self.dropout(self.head(x))), image)
