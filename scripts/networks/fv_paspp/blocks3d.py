"""The blocks of COVID-SegNet: feature variation (FV) and progressive ASPP (PASPP).

Yan et al., "COVID-19 chest CT image segmentation: a deep convolutional neural network solution",
2020 (arXiv 2004.10987).
"""

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn

REDUCTION = 2  # channels of the hidden layer of the gate: a half
RATES = (1, 2, 4, 8)


def conv_block_3d(in_channels: int, out_channels: int, kernel_size: int = 3) -> nn.Module:
    """Build convolution, batch normalisation and ReLU for (B, in_channels, H, W, D)."""
    return Convolution(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=kernel_size,
        adn_ordering="NA",
        act="relu",
        norm="batch",
    )


class FeatureVariation(nn.Module):
    """X + CBR([F_1, F_c, F_s]) with F_1 = CBR(X), F_c = a(F_1) * F_1 and F_s = s(F_1) * F_1.

    The gate a looks at the mean of every channel through two linear layers, ReLU between them.
    Contrast enhancement (CE), the block of the paper, ends in one gain for all channels, squeeze
    and excitation (SE, Hu et al. 2018) in one a channel. The gate s is a map for every channel by
    two 3x3x3 convolutions.
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


class ProgressiveASPP(nn.Module):
    """PASPP: four dilated branches that are merged two by two, then all.

    Every branch k has its own 1x1x1 CBR, p_k, to a quarter of the channels and its own 3x3x3
    convolution of p_k with rate 1, 2, 4 or 8, d_k. A pair shares the sum of its p: CBR([d_1 + p_1 +
    p_2, d_2 + p_1 + p_2]), likewise 3 and 4; the two halves are merged by a last CBR.
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
