"""ResNet-34 and ResNet-50 (He et al. 2016) as encoders, with dilation where wanted."""

from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn

from .base import check_width

BLOCKS = (3, 4, 6, 3)  # of the four stages, in both depths
KINDS = {34: ("basic", 1), 50: ("bottleneck", 4)}  # depth: block, channels of its output over its width
DILATIONS = {32: (1, 1, 1, 1), 16: (1, 1, 1, 2), 8: (1, 1, 2, 4)}  # output stride: dilation of each stage


class ResNetEncoder(nn.Module):
    """Stem and four stages, from scratch.

    Args:
        depth: 34 or 50.
        in_channels: channels of the image.
        base_width: channels of the stem, 64 in the paper, a multiple of 4. The stages have 1, 2, 4
            and 8 times as many with depth 34 and four times that with depth 50 (`channels`, stem
            first).
        output_stride: size of the image over that of the last stage: 32, or 16 or 8, where the last
            one or two stages keep the size and have their 3x3 convolutions dilated by 2 and 4
            instead (Yu et al. 2017).
    """

    def __init__(self, depth: int, in_channels: int, base_width: int, output_stride: int = 32) -> None:
        super().__init__()
        check_width(base_width, 4)
        block, expansion = KINDS[depth]
        widths = [base_width * factor for factor in (1, 2, 4, 8)]
        resnet = ResNet(
            block=block,
            layers=list(BLOCKS),
            block_inplanes=widths,
            spatial_dims=2,
            n_input_channels=in_channels,
            conv1_t_stride=2,
            shortcut_type="B",
            feed_forward=False,
            bias_downsample=False,
        )
        self.channels = [base_width, *(width * expansion for width in widths)]
        self.stem = nn.Sequential(resnet.conv1, resnet.bn1, resnet.act)
        self.pool = resnet.maxpool
        self.stages = nn.ModuleList([resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4])
        for stage, dilation in zip(self.stages, DILATIONS[output_stride], strict=True):
            if dilation > 1:
                _dilate(stage, dilation)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map the image (B, in_channels, H, W) to five maps, finest first: H / 2, then from H / 4.

        Sizes that do not divide are rounded up.
        """
        features = [self.stem(image)]
        x = self.pool(features[0])
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def _dilate(stage: nn.Module, dilation: int) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation = module.padding = (dilation, dilation)
