"""ResUNet with edge supervision (ESM), semantic supervision (ASSM) and attention fusion (AFM).

Hu, Shen, Guan, Li, Zhou, Ruan: "Deep co-supervision and attention fusion strategy for automatic
COVID-19 lung infection segmentation on CT images", Pattern Recognition 2022 (arXiv 2112.10368). The
modules are written from the paper, and the symbols in comments are the paper's. The paper leaves
the skeleton open. The depth of the encoder (ResNet-34), the channels of every stage and the 2x2
transposed convolutions are facts about the published code (docs/training.md lists them); no line of
it is taken.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import SettingError
from ..base import SegmentationNetwork, check_choice, check_size
from ..blocks import ConvBlock, DoubleConv, ResidualBlock, UpBlock, initialise_convolutions
from ..registration import register
from .fusion import GATES, RESIDUALS, AddFusion, AttentionFusion, ConcatFusion, NoFusion
from .supervision import SupervisionHeads

FUSIONS = ("none", "add", "concat", "attention")
ENCODER_BLOCKS = (3, 4, 6, 3)  # residual blocks of stages S2 ... S5, as in ResNet-34
STAGES = range(1, len(ENCODER_BLOCKS) + 2)


class Encoder(nn.Module):
    """Five stages S_1 ... S_5 at 1, 1/2, 1/4, 1/8 and 1/16 of the input's size.

    It has the blocks of ResNet-34, with a stem that keeps the full size (3x3, stride 1) and a 2x2
    max-pool.
    """

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.stem = ConvBlock(in_channels, channels[0], bias=False)
        self.pool = nn.MaxPool2d(kernel_size=2)
        stages: list[nn.Module] = []
        for index, blocks in enumerate(ENCODER_BLOCKS):
            before, after = channels[index], channels[index + 1]
            first = ResidualBlock(before, after, stride=1 if index == 0 else 2)
            stages.append(nn.Sequential(first, *(ResidualBlock(after, after) for _ in range(blocks - 1))))
        self.stages = nn.ModuleList(stages)
        initialise_convolutions(self)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map the image (B, in_channels, H, W) to S_1 ... S_5, finest first."""
        features = [self.stem(image)]
        x = self.pool(features[0])
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """Bridge and four up blocks: X_5 = bridge(S_5), X_i = up(X_{i+1}, S_i)."""

    def __init__(self, channels: Sequence[int], upsampling: str = "transposed") -> None:
        super().__init__()
        self.bridge = DoubleConv(channels[4], channels[4])
        ups: list[nn.Module] = []
        for level in (3, 2, 1, 0):
            # The finest upsampling has half the channels of its level: 32 of 64 in the published
            # code.
            up_channels = channels[level] if level else channels[0] // 2
            ups.append(UpBlock(channels[level + 1], up_channels, channels[level], channels[level], upsampling))
        self.ups = nn.ModuleList(ups)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map S_1 ... S_5 to X_1 ... X_5, finest first."""
        levels = [self.bridge(features[4])]
        for index, up in enumerate(self.ups):
            levels.append(up(levels[-1], features[3 - index]))
        return levels[::-1]


@register("resunet")
class ResUNet(SegmentationNetwork):
    """ResUNet_CiF of Hu et al. 2022; the defaults are C_2F (29,189,355 parameters).

    Args:
        in_channels: see `SegmentationNetwork`.
        out_channels: see `SegmentationNetwork`.
        base_width: channels of S_1 (64 in the published code); the others are 1, 2, 4 and 8 times
            as many.
        edge_stages: encoder stages under edge supervision (ESM), counted from 1.
        mask_stages: encoder stages under semantic supervision (ASSM).
        edge_stages_dec: decoder levels under edge supervision (ESM*).
        mask_stages_dec: decoder levels under semantic supervision (ASSM*).
        fusion: "attention" (AFM), "add", "concat", or "none" for the finest decoder level alone.
        gate: see `AttentionFusion`.
        residual: see `AttentionFusion`.
        include_top: see `AttentionFusion`.
        upsampling: how the decoder doubles its size, see `make_upsampling`. The paper says
            "bilinear interpolation up-sampling" in one place (section 4.4), the published code has
            transposed convolutions.
        dropout: see `SegmentationNetwork`; it acts on the fused map.
        deep_supervision: see `SegmentationNetwork`.

    Raises:
        ValueError: if an argument is outside what is expected.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        base_width: int = 64,
        edge_stages: Sequence[int] = (1, 2),
        mask_stages: Sequence[int] = (3, 4, 5),
        edge_stages_dec: Sequence[int] = (),
        mask_stages_dec: Sequence[int] = (),
        fusion: str = "attention",
        gate: str = "spatial",
        residual: str = "raw",
        include_top: bool = False,
        dropout: float = 0.0,
        deep_supervision: bool = True,
        upsampling: str = "transposed",
    ) -> None:
        super().__init__(
            base_width,
            dropout,
            size_multiple=2 ** len(ENCODER_BLOCKS),
            edge_heads=len(edge_stages) + len(edge_stages_dec),
            mask_heads=len(mask_stages) + len(mask_stages_dec),
            deep_supervision=deep_supervision,
        )
        check_choice("fusion", fusion, FUSIONS)
        check_choice("gate", gate, GATES)
        check_choice("residual", residual, RESIDUALS)
        _check_stages("encoder", edge_stages, mask_stages)
        _check_stages("decoder", edge_stages_dec, mask_stages_dec)

        channels = [base_width * factor for factor in (1, 1, 2, 4, 8)]
        self.encoder = Encoder(in_channels, channels)
        self.decoder = Decoder(channels, upsampling)
        self.fusion = _make_fusion(fusion, channels, gate, residual, include_top)
        self.reduces = fusion == "attention" and gate == "spatial" and dropout == 0
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(base_width, out_channels, kernel_size=1)
        supervised = {
            "edge_encoder": edge_stages,
            "edge_decoder": edge_stages_dec,
            "mask_encoder": mask_stages,
            "mask_decoder": mask_stages_dec,
        }
        self.heads = nn.ModuleDict(
            {name: SupervisionHeads(channels, stages) for name, stages in supervised.items() if stages}
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, in_channels, H, W) to logits.

        The heads of training mode: edge heads, mask heads; encoder before decoder each.
        """
        check_size(image, self.size_multiple)
        encoded = self.encoder(image)
        decoded = self.decoder(encoded)
        main = self._fused(decoded)
        if not (self.training and self.deep_supervision):
            return main
        maps = [main]
        for name, heads in self.heads.items():
            maps.append(heads(decoded if name.endswith("decoder") else encoded, image.shape[2:]))
        return torch.cat(maps, dim=1)

    def _fused(self, decoded: list[Tensor]) -> Tensor:
        if not torch.jit.is_scripting():  # noqa: SIM102 - TorchScript then compiles nothing below
            # the same map but for rounding, in a fraction of the time and memory
            if self.reduces and (self.training or self.rearranged):
                main: Tensor = self.fusion.reduced(decoded, self.out.weight, self.out.bias)  # type: ignore[operator]
                return main
        return self.out(self.dropout(self.fusion(decoded)))


def _check_stages(side: str, edge: Sequence[int], mask: Sequence[int]) -> None:
    stages = [*edge, *mask]
    if any(stage not in STAGES for stage in stages):
        raise SettingError(f"{side} stages are {stages}; expected: {STAGES.start} to {STAGES.stop - 1}")
    if len(set(stages)) != len(stages):
        raise SettingError(f"{side} stages are edge {list(edge)}, mask {list(mask)}; expected: each stage once")


def _make_fusion(name: str, channels: Sequence[int], gate: str, residual: str, include_top: bool) -> nn.Module:
    if name == "attention":
        return AttentionFusion(channels, channels[0], gate, residual, include_top)
    if name == "add":
        return AddFusion(channels, channels[0])
    if name == "concat":
        return ConcatFusion(channels, channels[0])
    return NoFusion()
