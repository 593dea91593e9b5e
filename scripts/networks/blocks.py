"""The small blocks that the networks are made of."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import check_choice


def resize_like(features: Tensor, other: Tensor) -> Tensor:
    """Resize (B, C, h, w) bilinearly to height and width of `other` (..., H, W)."""
    return F.interpolate(features, size=other.shape[-2:], mode="bilinear", align_corners=False)


def initialise_convolutions(network: nn.Module) -> None:
    """Draw the weights of all 2-D convolutions anew, by He et al. 2015 ("fan out")."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch normalisation; keeps the spatial size."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int] = 3, dilation: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding="same", dilation=dilation, bias=False),
            nn.BatchNorm2d(out_channels),
        )


class ConvBlock(nn.Sequential):
    """Convolution, batch normalisation, ReLU ("CBR" of the papers); keeps the spatial size."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, bias: bool = True) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class DoubleConv(nn.Sequential):
    """Two 3x3 `ConvBlock`, `channels` between them, `out_channels` or as many at the end."""

    def __init__(self, in_channels: int, channels: int, out_channels: int | None = None) -> None:
        super().__init__(ConvBlock(in_channels, channels), ConvBlock(channels, out_channels or channels))


class SeparableBlock(nn.Sequential):
    """Depthwise 3x3 and pointwise convolution, batch normalisation, ReLU; keeps the size."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=False),
            ConvBlock(in_channels, out_channels, kernel_size=1, bias=False),
        )


class ResidualBlock(nn.Module):
    """The basic block of ResNet-34 (He et al. 2016): two 3x3 convolutions around a shortcut.

    The shortcut is the identity, or a strided 1x1 convolution with batch normalisation where the
    size or the number of channels changes.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), values >= 0."""
        return F.relu(self.body(x) + self.shortcut(x), inplace=True)


class DoublingConv(nn.ConvTranspose2d):
    """A 2x2 transposed convolution of stride 2, which doubles height and width.

    Its windows do not overlap, so that it is a product of matrices. Channels last, forward and
    backward pass take half the time of torch's transposed convolution on a CPU.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=2, stride=2)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Map (B, in_channels, H, W) to (B, out_channels, 2H, 2W)."""
        if not (self.training and x.is_contiguous(memory_format=torch.channels_last)):
            return F.conv_transpose2d(x, self.weight, self.bias, stride=2)
        batch, _, height, width = x.shape
        bias = self.bias
        assert bias is not None  # for TorchScript
        kernel = self.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (4 * out_channels, in_channels)
        pixels = F.linear(x.permute(0, 2, 3, 1), kernel, bias.repeat(4))
        rows = pixels.view(batch, height, width, 2, -1).transpose(2, 3)  # (B, H, 2, W, 2 * out_channels)
        return rows.reshape(batch, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


UPSAMPLINGS = ("transposed", "bilinear")


def make_upsampling(name: str, in_channels: int, out_channels: int) -> nn.Module:
    """Build what doubles height and width: (B, in_channels, H, W) to (B, out_channels, 2H, 2W).

    It is a 2x2 "transposed" convolution or "bilinear" interpolation with a 1x1 convolution;
    ValueError for another name.
    """
    check_choice("upsampling", name, UPSAMPLINGS)
    if name == "transposed":
        return DoublingConv(in_channels, out_channels)
    # Both steps are linear and the weights of an interpolation sum to 1, so that their order is
    # free. The convolution goes first: it sees a quarter of the pixels.
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=1),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
    )


class UpBlock(nn.Module):
    """One decoder level: upsampling to `up_channels`, concatenation with the skip, `DoubleConv`."""

    def __init__(
        self, in_channels: int, up_channels: int, skip_channels: int, out_channels: int, upsampling: str = "transposed"
    ) -> None:
        super().__init__()
        self.up = make_upsampling(upsampling, in_channels, up_channels)
        self.body = DoubleConv(up_channels + skip_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map x (B, in_channels, H, W) and skip (B, skip_channels, 2H, 2W) to (B, out, 2H, 2W)."""
        return self.body(torch.cat([self.up(x), skip], dim=1))
