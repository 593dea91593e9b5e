"""SegNet: a decoder that puts values back where the encoder's pooling took them from.

Badrinarayanan, Kendall, Cipolla: "SegNet: A deep convolutional encoder-decoder architecture for
image segmentation", TPAMI 2017. Written from the paper.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import SegmentationNetwork, check_size
from ..blocks import ConvBlock
from ..registration import register
from ..vgg import CONVOLUTIONS, WIDTHS

STAGES = tuple(zip(WIDTHS, CONVOLUTIONS, strict=True))


def unpool(x: Tensor, places: Tensor) -> Tensor:
    """Put (B, C, h, w) at the places that a 2x2 max-pool took them from, and zeros elsewhere.

    `places` are the indices of `max_pool2d`; the result is (B, C, 2h, 2w). It is `max_unpool2d` in
    operations that every precision and export has.
    """
    batch, channels, height, width = x.shape
    flat = torch.zeros(batch, channels, 4 * height * width, dtype=x.dtype, device=x.device)
    return flat.scatter(2, places.flatten(2), x.flatten(2)).view(batch, channels, 2 * height, 2 * width)


@register("segnet")
class SegNet(SegmentationNetwork):
    """SegNet with the convolutions of VGG-16; 29,479,489 parameters.

    Height and width are multiples of 32.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, base_width: int = 64, dropout: float = 0.0) -> None:
        super().__init__(base_width, dropout, size_multiple=2 ** len(STAGES))
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        before = in_channels
        for index, (factor, convolutions) in enumerate(STAGES):
            width = factor * base_width
            after = base_width if index == 0 else before  # the finest level ends with its own width
            down.append(_stage([before] + [width] * convolutions))
            up.insert(0, _stage([width] * convolutions + [after]))
            before = width
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(base_width, out_channels, kernel_size=3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, in_channels, H, W) to logits (B, out_channels, H, W)."""
        check_size(image, self.size_multiple)
        x, places = image, torch.jit.annotate(list[Tensor], [])
        for stage in self.down:
            x, found = F.max_pool2d_with_indices(stage(x), [2, 2])
            places.append(found)
        for index, stage in enumerate(self.up):
            x = stage(unpool(x, places[len(places) - 1 - index]))
        return self.out(self.dropout(x))


def _stage(channels: list[int]) -> nn.Sequential:
    return nn.Sequential(*(ConvBlock(a, b) for a, b in pairwise(channels)))
