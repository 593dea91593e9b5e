"""Inf-Net: parallel partial decoder, edge attention and reverse attention on a backbone's features.

Fan, Zhou, Ji, Zhou, Chen, Fu, Shen, Shao: "Inf-Net: Automatic COVID-19 lung infection segmentation
from CT images", IEEE TMI 2020 (arXiv 2004.14133). Symbols in comments are the paper's: f_2 ... f_5
features, S_g the global map of the decoder, S_5, S_4, S_3 the maps of the reverse attentions, S_e
the edge map. The receptive field block is that of Liu et al. 2018 (arXiv 1711.07767), the partial
decoder that of Wu et al. 2019 (arXiv 1904.08739).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ..base import SegmentationNetwork, check_choice, check_size
from ..blocks import ConvNorm, resize_like
from ..registration import register
from ..resnet import ResNetEncoder
from ..vgg import VggEncoder
from .res2net import Res2Net

RFB_KERNELS = (3, 5, 7)
Backbone = Res2Net | ResNetEncoder | VggEncoder
BACKBONES: dict[str, Callable[[int, int], Backbone]] = {
    "res2net50": Res2Net,
    "resnet50": partial(ResNetEncoder, 50),
    "vgg16": VggEncoder,
}
"""What gives the features, built from the channels of the image and the base width."""


class ReceptiveFieldBlock(nn.Module):
    """Four branches of growing receptive field, merged and added to a projection of the input."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        branches: list[nn.Module] = [ConvNorm(in_channels, out_channels, 1)]
        for kernel in RFB_KERNELS:
            branches.append(
                nn.Sequential(
                    ConvNorm(in_channels, out_channels, 1),
                    ConvNorm(out_channels, out_channels, (1, kernel)),
                    ConvNorm(out_channels, out_channels, (kernel, 1)),
                    ConvNorm(out_channels, out_channels, 3, dilation=kernel),
                )
            )
        self.branches = nn.ModuleList(branches)
        self.merge = ConvNorm(len(branches) * out_channels, out_channels, 3)
        self.shortcut = ConvNorm(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W), values >= 0."""
        seen = torch.cat([branch(x) for branch in self.branches], dim=1)
        return torch.relu(self.merge(seen) + self.shortcut(x))


class ParallelPartialDecoder(nn.Module):
    """Multiply finer features by coarser ones and sum all up in the global map S_g."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.gate_5_on_4 = ConvNorm(channels, channels, 3)
        self.gate_5_on_3 = ConvNorm(channels, channels, 3)
        self.gate_4_on_3 = ConvNorm(channels, channels, 3)
        self.pass_5 = ConvNorm(channels, channels, 3)
        self.pass_4 = ConvNorm(2 * channels, 2 * channels, 3)
        self.merge_4 = ConvNorm(2 * channels, 2 * channels, 3)
        self.merge_3 = ConvNorm(3 * channels, 3 * channels, 3)
        self.out = nn.Sequential(ConvNorm(3 * channels, 3 * channels, 3), nn.Conv2d(3 * channels, 1, kernel_size=1))

    def forward(self, r3: Tensor, r4: Tensor, r5: Tensor) -> Tensor:
        """Map r3 (B, C, H, W), r4 and r5, each half as large, to the logits S_g (B, 1, H, W)."""
        r5_up = self.up(r5)
        level_4 = self.gate_5_on_4(r5_up) * r4
        level_3 = self.gate_5_on_3(self.up(r5_up)) * self.gate_4_on_3(self.up(r4)) * r3
        merged_4 = self.merge_4(torch.cat([level_4, self.pass_5(r5_up)], dim=1))
        merged_3 = self.merge_3(torch.cat([level_3, self.pass_4(self.up(merged_4))], dim=1))
        return self.out(merged_3)


class ReverseAttention(nn.Module):
    """Refine what the coarser map leaves out, with edge features: S_k = R_k + S_{k+1}.

    `depth` convolutions with `kernel` work on `channels`; the last, with `out_kernel`, gives one.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        edge_channels: int,
        kernel: int,
        depth: int,
        out_kernel: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.reduce = ConvNorm(in_channels, channels, 1)
        layers: list[nn.Module] = []
        for index in range(depth):
            before = channels + edge_channels if index == 0 else channels
            layers += [ConvNorm(before, channels, kernel), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout2d(dropout)
        self.out = ConvNorm(channels, 1, out_kernel)

    def forward(self, feature: Tensor, prior: Tensor, edge: Tensor) -> Tensor:
        """Map f_k (B, in_channels, H, W) and S_{k+1} or S_g (B, 1, h, w) to S_k.

        `edge` holds edge features (B, edge_channels, ., .); S_k are logits (B, 1, H, W).
        """
        prior = resize_like(prior, feature)
        reverse = 1 - torch.sigmoid(prior)
        seen = torch.cat([self.reduce(feature * reverse), resize_like(edge, feature)], dim=1)
        return self.out(self.dropout(self.body(seen))) + prior


@register("infnet")
class InfNet(SegmentationNetwork):
    """Inf-Net of Fan et al. 2020 (31,072,721 parameters; 33.122 M with an unused classifier).

    One channel of the image is repeated to the three of the ImageNet weights; dropout acts on S_3.
    The backbone is Res2Net-50 in the paper; its code also has ResNet-50 (30,911,401 parameters) and
    VGG-16 (21,298,857). The features of VGG-16, its last four stages, lie on grids twice as fine.
    """

    def __init__(
        self,
        in_channels: int = 1,
        base_width: int = 64,
        dropout: float = 0.0,
        deep_supervision: bool = True,
        backbone: str = "res2net50",
    ) -> None:
        super().__init__(
            base_width, dropout, size_multiple=32, edge_heads=1, mask_heads=3, deep_supervision=deep_supervision
        )
        check_choice("backbone", backbone, tuple(BACKBONES))
        self.grey = in_channels == 1
        self.backbone = BACKBONES[backbone](3 if self.grey else in_channels, base_width)
        c2, c3, c4, c5 = self.backbone.channels[-4:]
        self.receptive_3, self.receptive_4, self.receptive_5 = (
            ReceptiveFieldBlock(channels, base_width // 2) for channels in (c3, c4, c5)
        )
        self.decoder = ParallelPartialDecoder(base_width // 2)
        self.edge = nn.Sequential(
            ConvNorm(c2, base_width, 1), ConvNorm(base_width, base_width, 3), ConvNorm(base_width, base_width, 3)
        )
        self.edge_out = ConvNorm(base_width, 1, 3)
        self.attention_5 = ReverseAttention(c5, 4 * base_width, base_width, kernel=5, depth=3, out_kernel=1)
        self.attention_4 = ReverseAttention(c4, base_width, base_width, kernel=3, depth=2, out_kernel=3)
        self.attention_3 = ReverseAttention(
            c3, base_width, base_width, kernel=3, depth=2, out_kernel=3, dropout=dropout
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to logits S_3; in training mode S_3, S_e, S_g, S_5, S_4."""
        check_size(image, self.size_multiple)
        f2, f3, f4, f5 = self.backbone(image.expand(-1, 3, -1, -1) if self.grey else image)[-4:]
        edge = self.edge(f2)
        global_map = self.decoder(self.receptive_3(f3), self.receptive_4(f4), self.receptive_5(f5))
        map_5 = self.attention_5(f5, global_map, edge)
        map_4 = self.attention_4(f4, map_5, edge)
        main = resize_like(self.attention_3(f3, map_4, edge), image)
        if not (self.training and self.deep_supervision):
            return main
        maps = [main] + [resize_like(coarse, image) for coarse in (self.edge_out(edge), global_map, map_5, map_4)]
        return torch.cat(maps, dim=1)
