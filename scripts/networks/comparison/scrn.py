"""SCRN: features of region and edge refine each other in cross refinement units.

Wu, Su, Huang: "Stacked cross refinement network for edge-aware salient object detection", ICCV
2019. Written from the paper.
"""

import torch
from torch import Tensor, nn

from ..base import SegmentationNetwork
from ..blocks import ConvNorm, resize_like
from ..registration import register
from ..resnet import ResNetEncoder

UNITS = 4
LEVELS = 4


class Reduction(nn.ModuleList):
    """Every level to `channels` channels by 1x1, 3x3 and 3x3 convolutions of its own."""

    def __init__(self, in_channels: list[int], channels: int) -> None:
        super().__init__(
            nn.Sequential(
                ConvNorm(before, channels, kernel_size=1), ConvNorm(channels, channels), ConvNorm(channels, channels)
            )
            for before in in_channels
        )

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Map levels (B, c_i, h_i, w_i) to (B, channels, h_i, w_i)."""
        reduced: list[Tensor] = []
        for index, reduce in enumerate(self):
            reduced.append(reduce(levels[index]))
        return reduced


class LevelRefinement(nn.Module):
    """A cross refinement unit at one level k, `coarser` levels above the coarsest.

    s_k + conv(conv([s_k, e_k, up(e_j) for j > k])) and e_k + conv(conv(e_k * s_k * product of
    up(s_j) for j > k)), with s features of the region, e of its edge, up: resized, then a 1x1
    convolution.
    """

    def __init__(self, channels: int, coarser: int) -> None:
        super().__init__()
        self.region_up = nn.ModuleList(ConvNorm(channels, channels, kernel_size=1) for _ in range(coarser))
        self.edge_up = nn.ModuleList(ConvNorm(channels, channels, kernel_size=1) for _ in range(coarser))
        self.region = nn.Sequential(ConvNorm((2 + coarser) * channels, channels), ConvNorm(channels, channels))
        self.edge = nn.Sequential(ConvNorm(channels, channels), ConvNorm(channels, channels))

    def forward(self, region: list[Tensor], edge: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map s_j and e_j, j >= k, each (B, channels, h_j, w_j), to s_k and e_k refined."""
        united = [region[0], edge[0]]
        for index, up in enumerate(self.edge_up):
            united.append(up(resize_like(edge[index + 1], edge[0])))
        common = edge[0] * region[0]
        for index, up in enumerate(self.region_up):
            common = common * up(resize_like(region[index + 1], region[0]))
        return region[0] + self.region(torch.cat(united, dim=1)), edge[0] + self.edge(common)


class CrossRefinementUnit(nn.ModuleList):
    """One unit of the stack: all levels are refined from the unrefined ones."""

    def __init__(self, channels: int) -> None:
        super().__init__(LevelRefinement(channels, LEVELS - 1 - level) for level in range(LEVELS))

    def forward(self, region: list[Tensor], edge: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map the four levels of region and edge, finest first, to the same refined."""
        regions: list[Tensor] = []
        edges: list[Tensor] = []
        for index, level in enumerate(self):
            refined_region, refined_edge = level(region[index:], edge[index:])
            regions.append(refined_region)
            edges.append(refined_edge)
        return regions, edges


class Head(nn.Module):
    """The levels merged from coarse to fine, as in a U-Net, and one map of the result."""

    def __init__(self, channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.up = nn.ModuleList(ConvNorm(channels, channels) for _ in range(LEVELS - 1))
        self.merge = nn.ModuleList(
            nn.Sequential(ConvNorm(2 * channels, 2 * channels), ConvNorm(2 * channels, channels, kernel_size=1))
            for _ in range(LEVELS - 1)
        )
        self.out = nn.Sequential(
            ConvNorm(channels, channels), nn.Dropout2d(dropout), nn.Conv2d(channels, out_channels, kernel_size=1)
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Map four levels (B, channels, h_i, w_i), finest first, to (B, out_channels, h_1, w_1)."""
        x = levels[3]
        for index, (up, merge) in enumerate(zip(self.up, self.merge)):  # noqa: B905, TorchScript has no strict
            fine = levels[2 - index]
            x = merge(torch.cat([fine, up(resize_like(x, fine))], dim=1))
        return self.out(x)


@register("scrn")
class SCRN(SegmentationNetwork):
    """SCRN with ResNet-50 and four cross refinement units; 25,220,226 parameters.

    The features of region and edge have half as many channels as the base width.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        base_width: int = 64,
        dropout: float = 0.0,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__(base_width, dropout, edge_heads=1, deep_supervision=deep_supervision)
        self.encoder = ResNetEncoder(50, in_channels, base_width)
        channels = base_width // 2
        self.region = Reduction(self.encoder.channels[1:], channels)
        self.edge = Reduction(self.encoder.channels[1:], channels)
        self.units = nn.ModuleList(CrossRefinementUnit(channels) for _ in range(UNITS))
        self.region_head = Head(channels, out_channels, dropout)
        self.edge_head = Head(channels, 1, dropout)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to logits; in training mode main map, map of the edge."""
        levels = self.encoder(image)[1:]
        region, edge = self.region(levels), self.edge(levels)
        for unit in self.units:
            region, edge = unit(region, edge)
        main = resize_like(self.region_head(region), image)
        if not (self.training and self.deep_supervision):
            return main
        return torch.cat([main, resize_like(self.edge_head(edge), image)], dim=1)
