"""CARAFE: upsampling by kernels that are predicted from the content.

Wang, Chen, Xu, Liu, Loy, Lin: "CARAFE: Content-Aware ReAssembly of FEatures", ICCV 2019 (arXiv
1905.02188). Written from the paper.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 2  # sigma: how many times the output is as high and as wide
REASSEMBLY_SIZE = 5  # k_up: the neighbourhood that an output pixel is a weighted mean of
PREDICTION_SIZE = 3  # k_encoder: the neighbourhood that its weights are predicted from


class CARAFE(nn.Module):
    """Double the size of a map: an output pixel is a weighted mean of 5 x 5 source pixels.

    The weights are a softmax over these 25 pixels, predicted from the map and the same for all
    channels; beyond the border the map is zero. A 1x1 convolution to `out_channels` follows.

    Two things keep it small, and both are exact. The 1x1 convolution runs before the reassembly:
    mixtures of channels and weighted means of pixels commute, only the bias has to wait for the
    end. And the 25 neighbours are added up one by one, in place, without the copy of 25 times the
    map that unfolding makes. The backward pass keeps their factors, which are views of one map and
    of one set of weights, and no product.

    Args:
        in_channels: channels of the input (B, in_channels, H, W).
        out_channels: channels of the output (B, out_channels, 2H, 2W).
        compressed_channels: C_m, channels that the weights are predicted from.
    """

    def __init__(self, in_channels: int, out_channels: int, compressed_channels: int = 64) -> None:
        super().__init__()
        self.scale = SCALE  # TorchScript knows attributes, but no names of the module
        self.size = REASSEMBLY_SIZE
        self.compress = nn.Conv2d(in_channels, compressed_channels, kernel_size=1)
        self.predict = nn.Conv2d(
            compressed_channels,
            SCALE**2 * REASSEMBLY_SIZE**2,
            kernel_size=PREDICTION_SIZE,
            padding=PREDICTION_SIZE // 2,
        )
        self.project = nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, 2H, 2W)."""
        batch, height, width = x.shape[0], x.shape[2], x.shape[3]
        # The 4 output pixels of a source pixel share its neighbours and have an axis of their own,
        # behind the channels, where a pixel shuffle expects it. Contiguous, because with the
        # channels last the sums would stride.
        weights = self.predict(self.compress(x)).contiguous()
        weights = weights.view(batch, -1, 1, self.scale * self.scale, height, width).softmax(dim=1)
        projected = F.conv2d(x, self.project.weight).contiguous()
        padded = F.pad(projected, [self.size // 2] * 4).unsqueeze(2)
        bias = self.project.bias
        assert bias is not None  # for TorchScript, to which every convolution's bias is optional
        out = bias.view(1, -1, 1, 1, 1).expand(batch, -1, self.scale * self.scale, height, width).contiguous()
        for tap, weight in enumerate(weights.unbind(dim=1)):
            top, left = tap // self.size, tap % self.size
            out.addcmul_(padded[..., top : top + height, left : left + width], weight)
        return F.pixel_shuffle(out.flatten(1, 2), self.scale)
