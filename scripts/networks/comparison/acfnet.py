"""ACFNet: features of the classes, handed to the pixels, over a dilated ResNet-50.

Zhang, Chen, Li, Hong, Liu, Ma, Han, Ding: "ACFNet: Attentional class feature network for semantic
segmentation", ICCV 2019. Written from the paper.
"""

import torch
from torch import Tensor, nn

from ..base import SegmentationNetwork
from ..blocks import ConvBlock, resize_like
from ..registration import register
from ..resnet import ResNetEncoder
from .pspnet import auxiliary_head


class ClassFeatures(nn.Module):
    """ACF module: the centre of each class, then at every pixel the centres by its probabilities.

    The centre of a class is the mean feature, weighted by the coarse probability of that class. The
    classes are background and lesion, so that one logit holds the probabilities of both.
    """

    def forward(self, features: Tensor, coarse: Tensor) -> Tensor:
        """Map features (B, C, h, w) and coarse logits (B, 1, h, w) to features (B, C, h, w)."""
        lesion = torch.sigmoid(coarse)
        weights = torch.cat([1 - lesion, lesion], dim=1).flatten(2)  # (B, 2, h * w)
        total = weights.sum(dim=2, keepdim=True).clamp(min=1e-6)
        centres = weights @ features.flatten(2).transpose(1, 2) / total  # (B, 2, C)
        return (centres.transpose(1, 2) @ weights).reshape(features.shape)


@register("acfnet")
class ACFNet(SegmentationNetwork):
    """ACFNet with ResNet-50 at output stride 8; 40,283,843 parameters. Images of any size."""

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
        third, last = self.encoder.channels[3:]
        width = last // 4
        self.reduce = ConvBlock(last, width, bias=False)
        self.coarse = nn.Conv2d(width, 1, kernel_size=1)
        self.class_features = ClassFeatures()
        self.refine = ConvBlock(width, width, kernel_size=1, bias=False)
        self.merge = ConvBlock(2 * width, width, bias=False)
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(width, out_channels, kernel_size=1)
        self.auxiliary = auxiliary_head(third)

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, in_channels, H, W) to logits.

        The heads of training mode: the coarse map, then the auxiliary map of the third stage.
        """
        levels = self.encoder(image)
        features = self.reduce(levels[4])
        coarse = self.coarse(features)
        attended = self.refine(self.class_features(features, coarse))
        main = resize_like(self.out(self.dropout(self.merge(torch.cat([features, attended], dim=1)))), image)
        if not (self.training and self.deep_supervision):
            return main
        return torch.cat([main, resize_like(coarse, image), resize_like(self.auxiliary(levels[3]), image)], dim=1)
