"""Fusion of the five decoder levels X_1 ... X_5: attention (AFM), addition or concatenation.

Hu et al. 2022 (see `supervision`), section 3.4, equations 3 and 4, algorithm 1; addition and
concatenation are the alternatives of its table 5. A fusion maps the levels, finest first, to one
map of the finest size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import SettingError
from ..base import check_choice
from ..blocks import resize_like

GATES = ("spatial", "channelwise")
RESIDUALS = ("raw", "projected")


class LevelProjection(nn.Module):
    """X_i -> X_i^u: each level to `width` channels by a 1x1 convolution, then to full size."""

    def __init__(self, in_channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(channels, width, kernel_size=1) for channels in in_channels)

    def upsampled(self, features: list[Tensor]) -> list[Tensor]:
        """Map X_i (B, c_i, H_i, W_i) to X_i^u (B, width, H_1, W_1)."""
        maps: list[Tensor] = []
        for index, project in enumerate(self.project):  # TorchScript does not zip a list with modules
            maps.append(resize_like(project(features[index]), features[0]))
        return maps


class AttentionFusion(LevelProjection):
    """AFM: F = X_1 + Y_1 + (1 - P_1) * sum_{i=2..5} Y_i; Y_i = P_i * X_i^u.

    P_i = sigmoid(gate_i(X_i^u)).

    Args:
        in_channels: channels of X_1 ... X_5, finest first.
        width: channels of the fused map.
        gate: "spatial", one attention map a level by a 3x3 convolution (algorithm 1, the default),
            or "channelwise", one map a channel by a 1x1 convolution (figure 5 and the published
            code).
        residual: what is added to the attended maps: "raw" X_1 (figure 4, the default) or
            "projected" X_1^u.
        include_top: let the sum run from i = 1 as the published code does (Eq. 3: from i = 2).

    Raises:
        ValueError: for an unknown gate or residual, or a raw residual whose channels are not
            `width`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        width: int,
        gate: str = "spatial",
        residual: str = "raw",
        include_top: bool = False,
    ) -> None:
        super().__init__(in_channels, width)
        check_choice("gate", gate, GATES)
        check_choice("residual", residual, RESIDUALS)
        if residual == "raw" and in_channels[0] != width:
            raise SettingError(f"X_1 has {in_channels[0]} channels; expected for a raw residual: {width}")
        self.residual = residual
        self.include_top = include_top
        self.gates = nn.ModuleList(
            nn.Conv2d(width, 1, kernel_size=3, padding=1)
            if gate == "spatial"
            else nn.Conv2d(width, width, kernel_size=1)
            for _ in in_channels
        )

    def attend(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Map X_1 ... X_5 to X_i^u, P_i (B, 1 or width, H_1, W_1) in (0, 1), and Y_i."""
        projected = self.upsampled(features)
        attention: list[Tensor] = []
        attended: list[Tensor] = []
        for index, gate in enumerate(self.gates):
            attention.append(torch.sigmoid(gate(projected[index])))
            attended.append(attention[index] * projected[index])
        return projected, attention, attended

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map X_1 ... X_5 (B, c_i, H_i, W_i) to F (B, width, H_1, W_1)."""
        projected, attention, attended = self.attend(features)
        coarse = attended[1]
        for level in attended[2:]:
            coarse = coarse + level
        if self.include_top:
            coarse = coarse + attended[0]
        residual = features[0] if self.residual == "raw" else projected[0]
        return residual + attended[0] + (1 - attention[0]) * coarse

    def reduced(self, features: list[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
        """Map X_1 ... X_5 to a 1x1 convolution of F, (B, K, H_1, W_1), without forming F.

        A spatial gate weighs all channels alike. The convolution can therefore precede attention
        and interpolation, and so can the gate's own sum over the channels: K and 9 channels per
        level are interpolated in place of `width`. The result differs by rounding only.

        Args:
            features: see `forward`.
            weight: of the convolution, (K, width, 1, 1).
            bias: of the convolution, (K,).
        """
        channels = weight.shape[0]
        kernels, offsets = self._composed(weight)
        maps: list[Tensor] = []
        attention: list[Tensor] = []
        scores: list[Tensor] = []
        for index, gate in enumerate(self.gates):
            maps.append(F.conv2d(features[index], kernels[index][:, :, None, None], offsets[index]))
            score, logits = _to_full_size(maps[index], channels, features[0])
            attention.append(torch.sigmoid(logits + gate.bias))  # type: ignore[operator]
            scores.append(score)
        coarse = attention[1] * scores[1]
        for index in range(2, len(scores)):
            coarse = coarse + attention[index] * scores[index]
        finest = attention[0] * scores[0]
        if self.include_top:
            coarse = coarse + finest
        residual = maps[0][:, channels + 9 :] if self.residual == "raw" else scores[0]
        return residual + finest + (1 - attention[0]) * coarse + bias[:, None, None]

    def _composed(self, weight: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return each level's 1x1 convolution to K scores and the gate's 9 pixels, and its bias.

        That of X_1 ends with K more channels for a raw residual, so that X_1 is read once.
        """
        gates: list[Tensor] = []
        kernels: list[Tensor] = []
        offsets: list[Tensor] = []
        for gate in self.gates:
            gates.append(gate.weight[0].flatten(1).t())  # type: ignore[index]
        for index, project in enumerate(self.project):
            rows = torch.cat([weight.flatten(1), gates[index]])
            kernels.append(rows @ project.weight.flatten(1))  # type: ignore[operator]
            offsets.append(rows @ project.bias)  # type: ignore[operator]
        if self.residual == "raw":
            kernels[0] = torch.cat([kernels[0], weight.flatten(1).to(kernels[0].dtype)])
            offsets[0] = F.pad(offsets[0], [0, weight.shape[0]])
        return kernels, offsets


def _to_full_size(maps: Tensor, channels: int, finest: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores (B, channels, H_1, W_1) and the gate's logits (B, 1, H_1, W_1).

    Args:
        maps: scores and, behind them, the gate's 9 pixels, (B, channels + 9 or more, H_i, W_i).
        channels: number of scores.
        finest: X_1.
    """
    score, pixels = maps[:, :channels], maps[:, channels : channels + 9]
    if maps.shape[2:] == finest.shape[2:]:
        shifts = torch.eye(9, dtype=maps.dtype, device=maps.device).view(1, 9, 3, 3)
        return score, F.conv2d(pixels, shifts, padding=1)
    # On a CPU products of matrices are faster than F.interpolate, and they shift and add the gate's
    # pixels as they go.
    down = _interpolation(maps.shape[2], finest.shape[2], maps)
    across = _interpolation(maps.shape[3], finest.shape[3], maps).transpose(1, 2)
    rows = pixels.unflatten(1, (3, 3)).transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, 3 H_i, 3 W_i)
    logits = down.transpose(0, 1).flatten(1) @ (rows @ across.flatten(0, 1))
    return down[1] @ (score @ across[1]), logits[:, None]


def _interpolation(size: int, full_size: int, like: Tensor) -> Tensor:
    """Return matrices (3, full_size, size) of linear interpolation, shifted by -1, 0 and 1 pixel.

    A shift fills in zeros, as a convolution's padding does.
    """
    pixels = torch.eye(size, dtype=torch.float32, device=like.device)[None]
    matrix = F.interpolate(pixels, size=full_size, mode="linear", align_corners=False)[0].t()
    shifted = [F.pad(matrix, [0, 0, 1, -1]), matrix, F.pad(matrix, [0, 0, -1, 1])]
    return torch.stack(shifted).to(like.dtype)


class AddFusion(LevelProjection):
    """F = sum_{i=1..5} X_i^u ("Add" of table 5)."""

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map X_1 ... X_5 (B, c_i, H_i, W_i) to F (B, width, H_1, W_1)."""
        return torch.stack(self.upsampled(features)).sum(dim=0)


class ConcatFusion(LevelProjection):
    """F = 1x1 convolution of the concatenated X_i^u ("Concatenate" of table 5)."""

    def __init__(self, in_channels: Sequence[int], width: int) -> None:
        super().__init__(in_channels, width)
        self.merge = nn.Conv2d(width * len(in_channels), width, kernel_size=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map X_1 ... X_5 (B, c_i, H_i, W_i) to F (B, width, H_1, W_1)."""
        return self.merge(torch.cat(self.upsampled(features), dim=1))


class NoFusion(nn.Module):
    """F = X_1, the finest decoder level alone (the paper's baseline "ResUNet")."""

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return X_1 (B, c_1, H_1, W_1)."""
        return features[0]
