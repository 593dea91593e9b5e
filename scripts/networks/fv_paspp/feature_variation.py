"""The feature variation (FV) block of COVID-SegNet: contrast between channels and between places.

Yan et al., "COVID-19 chest CT image segmentation: a deep convolutional neural network solution",
2020 (arXiv 2004.10987).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks3d import conv_block_3d

REDUCTION = 2  # channels of the hidden layer of the gate: a half


class FeatureVariation(nn.Module):
    """X + CBR([F_1, F_c, F_s]) with F_1 = CBR(X), F_c = a(F_1) * F_1 and F_s = s(F_1) * F_1.

    The gate a looks at the mean of every channel through two linear layers, ReLU between them.
    Contrast enhancement (CE), the block of the paper, ends in one gain for all channels, squeeze
    and excitation (SE, Hu et al. 2018) in one a channel. The gate s is a map for every channel by
    two 3x3x3 convolutions.

    Args:
        channels: channels of input and output.
        variation: "se" or "ce".
    """

    def __init__(self, channels: int, variation: str) -> None:
        super().__init__()
        hidden = channels // REDUCTION
        self.enter = conv_block_3d(channels, channels, kernel_size=1)
        self.channel_gate = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels if variation == "se" else 1),
            nn.Sigmoid(),
        )
        self.spatial_gate = nn.Sequential(
            conv_block_3d(channels, channels), nn.Conv3d(channels, channels, kernel_size=3, padding=1), nn.Sigmoid()
        )
        self.merge = conv_block_3d(3 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W, D) to the same shape."""
        entered = self.enter(x)
        gain = self.channel_gate(entered.mean(dim=(2, 3, 4)))[:, :, None, None, None]  # (B, channels or 1, 1, 1, 1)
        varied = [entered, gain * entered, self.spatial_gate(entered) * entered]
        return x + self.merge(torch.cat(varied, dim=1))
