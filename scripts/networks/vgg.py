"""VGG-16 (Simonyan and Zisserman 2015, arXiv 1409.1556) as an encoder."""

from torch import Tensor, nn

from .base import check_width
from .blocks import initialise_convolutions

CONVOLUTIONS = (2, 2, 3, 3, 3)  # of the five stages, configuration D
WIDTHS = (1, 2, 4, 8, 8)  # channels of the stages in base widths


class VggEncoder(nn.Module):
    """Five stages of 3x3 convolutions, from scratch; 14,714,688 parameters with three channels in.

    As in the paper there is no normalisation, and maxima over 2 x 2 pixels stand between the
    stages.

    Args:
        in_channels: channels of the image.
        base_width: channels of the first stage, 64 in the paper, a multiple of 4; `channels` are
            those of all stages.
    """

    def __init__(self, in_channels: int, base_width: int) -> None:
        super().__init__()
        check_width(base_width, 4)
        self.channels = [base_width * factor for factor in WIDTHS]
        self.pool = nn.MaxPool2d(kernel_size=2)
        self.stages = nn.ModuleList()
        before = in_channels
        for convolutions, width in zip(CONVOLUTIONS, self.channels, strict=True):
            layers: list[nn.Module] = []
            for _ in range(convolutions):
                layers += [nn.Conv2d(before, width, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
                before = width
            self.stages.append(nn.Sequential(*layers))
        initialise_convolutions(self)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map the image (B, in_channels, H, W) to five maps, at H, H / 2 and so on to H / 16."""
        features: list[Tensor] = []
        x = image
        for index, stage in enumerate(self.stages):
            x = stage(x if index == 0 else self.pool(x))
            features.append(x)
        return features
