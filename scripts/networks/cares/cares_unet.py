"""CARes-UNet: a U-Net of residual blocks with content-aware upsampling.

Xu, Wen, Zhao, Zhang, Zhao, Tang, Yang, Chen: "CARes-UNet: Content-aware residual UNet for lesion
segmentation of COVID-19 from chest CT images", Medical Physics 2021 (doi 10.1002/mp.15231). Written
from the paper and, where its figure 1 leaves the layers open (the residual block behind every
strided convolution, the numbers of channels), from facts about the published code; no line of it is
taken.
"""

from __future__ import annotations

import torch
from monai.networks.blocks import Convolution
from monai.networks.nets.resnet import ResNetBlock
from torch import Tensor, nn

from ..base import SegmentationNetwork, check_size
from ..registration import register
from .carafe import CARAFE

LEVELS = 5
COMPRESSED_CHANNELS = 64  # C_m of CARAFE


def conv_block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """3x3 convolution with batch normalisation and ReLU, then a residual block around the identity.

    Args:
        in_channels: channels of the input (B, in_channels, H, W).
        out_channels: channels of the output (B, out_channels, H / stride, W / stride), values >= 0.
        stride: stride of the first convolution; 2 halves the size in place of a pooling.
    """
    return nn.Sequential(
        Convolution(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=out_channels,
            strides=stride,
            kernel_size=3,
            adn_ordering="NA",
            norm="batch",
            act="relu",
            bias=False,
        ),
        ResNetBlock(out_channels, out_channels, spatial_dims=2),
    )


class CARAFEUpBlock(nn.Module):
    """Decoder level: CARAFE to half the channels, concatenation behind the skip, `conv_block`.

    Args:
        in_channels: channels of the coarser decoder map.
        out_channels: channels of the skip and of this decoder level.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        # A narrow network has fewer channels than the paper compresses to.
        self.up = CARAFE(in_channels, out_channels, min(COMPRESSED_CHANNELS, in_channels))
        self.body = conv_block(2 * out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map x (B, in_channels, H, W) and skip (B, out, 2H, 2W) to (B, out, 2H, 2W)."""
        return self.body(torch.cat([skip, self.up(x)], dim=1))


@register("cares_unet")
class CAResUNet(SegmentationNetwork):
    """CARes-UNet of Xu et al. 2021; 54,417,554 parameters at width 64.

    The paper's network ends in two maps, background and lesion, of which a softmax makes
    probabilities. A softmax over two classes sees only their difference, so this one keeps both
    projections and returns lesion - background as the one logit: its sigmoid is the softmax's
    probability of lesion.

    The published code puts a sigmoid on both maps before that softmax, which squeezes the
    probabilities into [0.27, 0.73]. It is no option here: the larger map stays the larger, so the
    mask at 0.5 is the same, and the loss loses its zero (see `DiceCrossEntropyLoss`). Nor are the
    1x1 shortcuts that its residual blocks have and never use (2,100,864 parameters).

    Arguments and errors: see `SegmentationNetwork`; the levels have 1, 2, 4, 8 and 16 times the
    base width.
    """

    def __init__(self, in_channels: int = 1, base_width: int = 64, dropout: float = 0.0) -> None:
        super().__init__(base_width, dropout, width_multiple=1, size_multiple=2 ** (LEVELS - 1))
        channels = [base_width * 2**level for level in range(LEVELS)]
        self.first = conv_block(in_channels, base_width)
        self.stages = nn.ModuleList(
            nn.Sequential(conv_block(width, width, stride=2), conv_block(width, 2 * width)) for width in channels[:-1]
        )
        self.ups = nn.ModuleList(CARAFEUpBlock(2 * width, width) for width in reversed(channels[:-1]))
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(base_width, 2, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, in_channels, H, W) to logits (B, 1, H, W), in both modes.

        Raises:
            ValueError: if H or W is not a multiple of 16.
        """
        check_size(image, self.size_multiple)
        background, lesion = self.class_logits(image).split(1, dim=1)
        return lesion - background

    def class_logits(self, image: Tensor) -> Tensor:
        """Map images (B, in_channels, H, W) to maps (B, 2, H, W): background, lesion."""
        levels = [self.first(image)]
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        x = levels[-1]
        for index, up in enumerate(self.ups):
            x = up(x, levels[len(levels) - 2 - index])
        return self.out(self.dropout(x))
