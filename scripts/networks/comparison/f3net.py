"""F3Net: cross feature modules (CFM) in two decoders, the second with feedback from the first.

Wei, Wang, Huang: "F3Net: Fusion, feedback and focus for salient object detection", AAAI 2020.
Written from the paper.
"""

import torch
from torch import Tensor, nn

from ..base import SegmentationNetwork
from ..blocks import ConvBlock, resize_like
from ..registration import register
from ..resnet import ResNetEncoder


class Branch(nn.Module):
    """One side of a `CrossFeatureModule`: two convolutions before the product, two after it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels)
        self.second = ConvBlock(channels, channels)
        self.third = ConvBlock(channels, channels)
        self.fourth = ConvBlock(channels, channels)


class CrossFeatureModule(nn.Module):
    """CFM: a finer and a coarser map, selected by their product, each added to itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fine = Branch(channels)
        self.coarse = Branch(channels)

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Map fine (B, C, h, w) and coarse (B, C, h', w') to two maps (B, C, h, w)."""
        fine = self.fine.first(fine)
        coarse = self.coarse.first(resize_like(coarse, fine))
        fused = self.fine.second(fine) * self.coarse.second(coarse)
        fine = self.fine.fourth(self.fine.third(fused) + fine)
        coarse = self.coarse.fourth(self.coarse.third(fused) + coarse)
        return fine, coarse


class Decoder(nn.Module):
    """Three cross feature modules, from the coarsest pair of levels to the finest."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cross = nn.ModuleList(CrossFeatureModule(channels) for _ in range(3))

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Map levels 2 to 5, finest first, to the refined levels (coarsest: 4) and the result."""
        coarse = levels[3]
        refined: list[Tensor] = []  # level 4 down to 2, after the coarsest
        for index, module in enumerate(self.cross):
            fine, coarse = module(levels[2 - index], coarse)
            if index == 0:
                refined.append(coarse)
            refined.append(fine)
        return refined[::-1], coarse


@register("f3net")
class F3Net(SegmentationNetwork):
    """F3Net with ResNet-50; 25,530,438 parameters. Images of any size."""

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        base_width: int = 64,
        dropout: float = 0.0,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__(base_width, dropout, mask_heads=5, deep_supervision=deep_supervision)
        self.encoder = ResNetEncoder(50, in_channels, base_width)
        self.squeeze = nn.ModuleList(
            ConvBlock(channels, base_width, kernel_size=1) for channels in self.encoder.channels[1:]
        )
        self.first = Decoder(base_width)
        self.second = Decoder(base_width)
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(base_width, out_channels, kernel_size=3, padding=1)
        self.first_head = nn.Conv2d(base_width, 1, kernel_size=3, padding=1)
        self.level_heads = nn.ModuleList(nn.Conv2d(base_width, 1, kernel_size=3, padding=1) for _ in range(4))

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, in_channels, H, W) to logits.

        The heads of training mode: first decoder, then the levels of the second, finest first.
        """
        features = self.encoder(image)
        levels: list[Tensor] = []
        for index, squeeze in enumerate(self.squeeze):
            levels.append(squeeze(features[index + 1]))
        levels, feedback = self.first(levels)
        levels, result = self.second([level + resize_like(feedback, level) for level in levels])
        main = resize_like(self.out(self.dropout(result)), image)
        if not (self.training and self.deep_supervision):
            return main
        maps = [main, resize_like(self.first_head(feedback), image)]
        for index, head in enumerate(self.level_heads):
            maps.append(resize_like(head(levels[index]), image))
        return torch.cat(maps, dim=1)
