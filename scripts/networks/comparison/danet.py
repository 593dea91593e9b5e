"""DANet: attention among positions and among channels over a dilated ResNet-50.

Fu, Liu, Tian, Li, Bao, Fang, Lu: "Dual attention network for scene segmentation", CVPR 2019.
Written from the paper, but for the sign of the channel attention (`ChannelAttention`).
"""

import torch
from torch import Tensor, nn

from ..base import SegmentationNetwork
from ..blocks import ConvBlock, resize_like
from ..registration import register
from ..resnet import ResNetEncoder


class PositionAttention(nn.Module):
    """PAM: x + gamma * (sum over positions, weighted by softmax(query . key)); gamma from 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, kernel_size=1)
        self.key = nn.Conv2d(channels, channels // 8, kernel_size=1)
        self.value = nn.Conv2d(channels, channels, kernel_size=1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, h, w) to the same shape."""
        query, key, value = self.query(x).flatten(2), self.key(x).flatten(2), self.value(x).flatten(2)
        weights = torch.softmax(query.transpose(1, 2) @ key, dim=-1)  # (B, h * w, h * w), sum 1 over the last
        return x + self.gamma * (value @ weights.transpose(1, 2)).reshape(x.shape)


class ChannelAttention(nn.Module):
    """CAM: x + gamma * (sum over channels, weighted by softmax(-E)), E their inner products.

    The paper prints softmax(E). The authors' model has softmax(max E - E), which is softmax(-E): a
    channel attends to those least like it. The published figures are of that model, and it is what
    is built here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, h, w) to the same shape."""
        flat = x.flatten(2)
        weights = torch.softmax(-(flat @ flat.transpose(1, 2)), dim=-1)  # (B, channels, channels)
        return x + self.gamma * (weights @ flat).reshape(x.shape)


@register("danet")
class DANet(SegmentationNetwork):
    """DANet with ResNet-50 at output stride 8; 47,428,677 parameters. Images of any size."""

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        base_width: int = 64,
        dropout: float = 0.0,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__(base_width, dropout, mask_heads=2, deep_supervision=deep_supervision)
        self.encoder = ResNetEncoder(50, in_channels, base_width, output_stride=8)
        last = self.encoder.channels[4]
        width = last // 4
        self.position = nn.Sequential(
            ConvBlock(last, width, bias=False), PositionAttention(width), ConvBlock(width, width, bias=False)
        )
        self.channel = nn.Sequential(
            ConvBlock(last, width, bias=False), ChannelAttention(), ConvBlock(width, width, bias=False)
        )
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(width, out_channels, kernel_size=1)
        self.position_head = nn.Conv2d(width, 1, kernel_size=1)
        self.channel_head = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, in_channels, H, W) to logits.

        The heads of training mode: the map of the positions, then that of the channels.
        """
        features = self.encoder(image)[4]
        position, channel = self.position(features), self.channel(features)
        main = self.out(self.dropout(position + channel))
        if not (self.training and self.deep_supervision):
            return resize_like(main, image)
        return resize_like(torch.cat([main, self.position_head(position), self.channel_head(channel)], dim=1), image)
