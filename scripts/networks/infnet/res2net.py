"""Res2Net-50 v1b with four scales of 26 channels: the backbone of Inf-Net.

Gao, Cheng, Zhao, Zhang, Yang, Torr: "Res2Net: A new multi-scale backbone architecture", IEEE TPAMI
2021 (arXiv 1904.01169); "v1b" is ResNet-50 with a stem of three 3x3 convolutions and average
pooling before strided shortcuts. Parameters have the names of the weights that the authors
released, `res2net50_v1b_26w_4s-*.pth`, so that these load.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import UserError
from ...finite import load_weights
from ..blocks import initialise_convolutions

BLOCKS = (3, 4, 6, 3)  # of layer1 ... layer4, as in ResNet-50
EXPANSION = 4
SCALES = 4
SCALE_CHANNELS = 26  # of each scale in a block of 64 planes


class Res2NetBlock(nn.Module):
    """A bottleneck whose 3x3 convolution is split into four scales with growing fields of view.

    The first block of a layer has a projection on the shortcut. It handles its scales
    independently, because the strided ones differ in size from the others, and pools the last one,
    which has no convolution.
    """

    def __init__(self, in_channels: int, planes: int, stride: int = 1, first: bool = False) -> None:
        super().__init__()
        self.first = first
        self.scale_channels = planes * SCALE_CHANNELS // 64
        split_channels = SCALES * self.scale_channels
        out_channels = EXPANSION * planes
        self.conv1 = nn.Conv2d(in_channels, split_channels, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(split_channels)
        self.convs = nn.ModuleList(
            nn.Conv2d(self.scale_channels, self.scale_channels, kernel_size=3, stride=stride, padding=1, bias=False)
            for _ in range(SCALES - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(self.scale_channels) for _ in range(SCALES - 1))
        self.pool: nn.Module = nn.AvgPool2d(kernel_size=3, stride=stride, padding=1) if first else nn.Identity()
        self.conv3 = nn.Conv2d(split_channels, out_channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if first:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(kernel_size=stride, stride=stride, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, 4 * planes, H / stride, W / stride), values >= 0."""
        parts = torch.split(torch.relu(self.bn1(self.conv1(x))), self.scale_channels, dim=1)
        scales: list[Tensor] = []
        for index, (conv, bn) in enumerate(zip(self.convs, self.bns, strict=True)):
            part = parts[index]
            if index > 0 and not self.first:
                part = part + scales[-1]
            scales.append(torch.relu(bn(conv(part))))
        scales.append(self.pool(parts[-1]))
        return torch.relu(self.bn3(self.conv3(torch.cat(scales, dim=1))) + self.downsample(x))


class Res2Net(nn.Module):
    """The features of Res2Net-50 v1b 26w x 4s (23,669,352 parameters at full width).

    `base_width` counts the channels of the stem's output and the planes of layer1; all others scale
    with it.
    """

    def __init__(self, in_channels: int = 3, base_width: int = 64) -> None:
        super().__init__()
        half = base_width // 2
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, half, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, base_width, kernel_size=3, padding=1, bias=False),
        )
        self.bn1 = nn.BatchNorm2d(base_width)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.channels = [EXPANSION * base_width * factor for factor in (1, 2, 4, 8)]
        layers = [
            _layer(before, after // EXPANSION, blocks, stride)
            for before, after, blocks, stride in zip(
                [base_width, *self.channels[:-1]], self.channels, BLOCKS, (1, 2, 2, 2), strict=True
            )
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        initialise_convolutions(self)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map the image (B, in_channels, H, W) to the outputs of layer1 ... layer4.

        They have `channels` channels, at 1/4, 1/8, 1/16 and 1/32 of the size.
        """
        first = self.layer1(self.maxpool(torch.relu(self.bn1(self.conv1(image)))))
        second = self.layer2(first)
        third = self.layer3(second)
        return [first, second, third, self.layer4(third)]


def _layer(in_channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        Res2NetBlock(in_channels, planes, stride, first=True),
        *(Res2NetBlock(EXPANSION * planes, planes) for _ in range(blocks - 1)),
    )


def load_imagenet_weights(network: Res2Net, path: str | Path) -> None:
    """Load the released ImageNet weights (res2net50_v1b_26w_4s-*.pth), but for the classifier (fc).

    UserError if the file cannot be read, its entries are not those of the network, which has three
    input channels and full width, or a weight is not finite.
    """
    expected = "ImageNet weights of Res2Net-50 v1b 26w x 4s (res2net50_v1b_26w_4s-*.pth)"
    weights = {key: value for key, value in load_weights(path, expected).items() if not key.startswith("fc.")}
    wanted = network.state_dict()
    # PyTorch before 0.4.1 did not count batches, and nothing here reads the count.
    missing = [key for key in wanted if key not in weights and not key.endswith("num_batches_tracked")]
    unknown = [key for key in weights if key not in wanted]
    other = [key for key in weights if key in wanted and weights[key].shape != wanted[key].shape]
    if missing or unknown or other:
        kinds = {"missing": missing, "unknown": unknown, "of another shape": other}
        problems = [f"{len(keys)} {kind} ({keys[0]})" for kind, keys in kinds.items() if keys]
        raise UserError(
            f"{path}: entries do not fit: {', '.join(problems)}; expected: {expected} for a network of full width "
            "(base_width 64) whose images have 1 channel or 3"
        )
    network.load_state_dict(weights, strict=False)
