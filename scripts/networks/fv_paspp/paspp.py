"""Progressive atrous spatial pyramid pooling (PASPP; Yan et al. 2020, arXiv 2004.10987)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks3d import conv_block_3d

RATES = (1, 2, 4, 8)


class ProgressiveASPP(nn.Module):
    """Four dilated branches that are merged two by two, then all.

    Every branch k has its own 1x1x1 CBR, p_k, to a quarter of the channels and its own 3x3x3
    convolution of p_k with rate 1, 2, 4 or 8, d_k. A pair shares the sum of its p: CBR([d_1 + p_1 +
    p_2, d_2 + p_1 + p_2]), likewise 3 and 4; the two halves are merged by a last CBR.

    Args:
        channels: channels of input and output, a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter, half = channels // 4, channels // 2
        self.project = nn.ModuleList(conv_block_3d(channels, quarter, kernel_size=1) for _ in RATES)
        self.dilate = nn.ModuleList(
            nn.Conv3d(quarter, quarter, kernel_size=3, padding=rate, dilation=rate) for rate in RATES
        )
        self.merge_near = conv_block_3d(half, half, kernel_size=1)
        self.merge_far = conv_block_3d(half, half, kernel_size=1)
        self.merge = conv_block_3d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W, D) to the same shape, values >= 0."""
        projected = [project(x) for project in self.project]
        dilated: list[Tensor] = []
        for index, dilate in enumerate(self.dilate):  # TorchScript does not zip a list with modules
            dilated.append(dilate(projected[index]))
        near, far = projected[0] + projected[1], projected[2] + projected[3]
        halves = [
            self.merge_near(torch.cat([dilated[0] + near, dilated[1] + near], dim=1)),
            self.merge_far(torch.cat([dilated[2] + far, dilated[3] + far], dim=1)),
        ]
        return self.merge(torch.cat(halves, dim=1))
