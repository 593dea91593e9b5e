"""The multi-class U-Net of Semi-Inf-Net: ground glass and consolidation in a given map.

Fan et al. 2020 (arXiv 2004.14133, "Semi-Inf-Net & MC"): a U-Net (Ronneberger et al. 2015) with
batch normalisation and bilinear upsampling that sees the image and, as a prior, the map of the
binary network.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ..base import SegmentationNetwork, check_size
from ..blocks import DoubleConv
from ..registration import register

WIDTHS = (1, 2, 4, 8, 8)  # channels of the five levels in base widths


@register("mc_unet")
class MultiClassUNet(SegmentationNetwork):
    """U-Net with bilinear upsampling (17,269,251 parameters at the paper's width).

    Args:
        in_channels: 2 for a grey image and its prior, each repeated to three channels as in the
            paper; any other number goes to the first convolution as it is.
        out_channels: classes; in the paper background, ground-glass opacity, consolidation, each a
            map of its own (sigmoid, not softmax).
        base_width: see `SegmentationNetwork`, a multiple of 4.
        dropout: see `SegmentationNetwork`.
    """

    def __init__(self, in_channels: int = 2, out_channels: int = 3, base_width: int = 64, dropout: float = 0.0) -> None:
        super().__init__(base_width, dropout, size_multiple=2 ** (len(WIDTHS) - 1))
        channels = [base_width * factor for factor in WIDTHS]
        self.repeats = 3 if in_channels == 2 else 1
        self.stem = DoubleConv(self.repeats * in_channels, channels[0])
        self.pool = nn.MaxPool2d(kernel_size=2)
        self.downs = nn.ModuleList(DoubleConv(before, after) for before, after in pairwise(channels))
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.ups = nn.ModuleList(  # the map from below has as many channels as the skip, half of what comes in
            DoubleConv(2 * channels[level], channels[level], channels[max(level - 1, 0)]) for level in (3, 2, 1, 0)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(base_width, out_channels, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Map images with priors (B, in_channels, H, W) to class logits (B, out_channels, H, W)."""
        check_size(image, self.size_multiple)
        x = self.stem(image.repeat_interleave(self.repeats, dim=1))
        skips: list[Tensor] = []
        for down in self.downs:
            skips.append(x)
            x = down(self.pool(x))
        for up in self.ups:
            x = up(torch.cat([skips.pop(), self.up(x)], dim=1))
        return self.out(self.dropout(x))
