"""FCN-8s: VGG-16 as a fully convolutional network, with skips from its third and fourth pool.

Long, Shelhamer, Darrell: "Fully convolutional networks for semantic segmentation", CVPR 2015.
Written from the paper. The image is not padded by 100 pixels: the layer "fc6" pads by itself.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import SegmentationNetwork, check_size
from ..blocks import resize_like
from ..registration import register
from ..vgg import VggEncoder

FC_WIDTH = 64  # channels of the two layers that were fully connected, in base widths: 4096
FC_KERNEL = 7


class LearnedDoubling(nn.ConvTranspose2d):
    """Doubling of height and width that starts as bilinear interpolation and is learned.

    Each class begins with its own 4 x 4 kernel of bilinear weights; those between classes are 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel_size=4, stride=2, padding=1, bias=False)
        tent = torch.tensor([0.25, 0.75, 0.75, 0.25])
        with torch.no_grad():
            self.weight.zero_()
            for channel in range(channels):
                self.weight[channel, channel] = tent[:, None] * tent


@register("fcn8s")
class FCN8s(SegmentationNetwork):
    """FCN-8s; 134,264,291 parameters. Height and width are multiples of 32.

    The published network drops half of the channels of "fc6" and "fc7" while training; here
    `dropout` acts on those of both.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, base_width: int = 64, dropout: float = 0.0) -> None:
        super().__init__(base_width, dropout, size_multiple=32)
        self.encoder = VggEncoder(in_channels, base_width)
        *_, third, fourth, fifth = self.encoder.channels
        width = FC_WIDTH * base_width
        self.pool = nn.MaxPool2d(kernel_size=2)
        self.fc6 = nn.Conv2d(fifth, width, FC_KERNEL, padding=FC_KERNEL // 2)
        self.fc7 = nn.Conv2d(width, width, kernel_size=1)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.dropout = nn.Dropout2d(dropout)
        self.score_7 = nn.Conv2d(width, out_channels, kernel_size=1)
        self.score_4 = nn.Conv2d(fourth, out_channels, kernel_size=1)
        self.score_3 = nn.Conv2d(third, out_channels, kernel_size=1)
        self.up_7 = LearnedDoubling(out_channels)
        self.up_4 = LearnedDoubling(out_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, in_channels, H, W) to logits (B, out_channels, H, W)."""
        check_size(image, self.size_multiple)
        features = self.encoder(image)
        third, fourth, fifth = self.pool(features[2]), self.pool(features[3]), self.pool(features[4])
        deep = self.dropout(F.relu(self.fc6(fifth)))
        deep = self.dropout(F.relu(self.fc7(deep)))
        sixteenth = self.up_7(self.score_7(deep)) + self.score_4(fourth)
        return resize_like(self.up_4(sixteenth) + self.score_3(third), image)
