"""CARes-UNet: a U-Net of residual blocks with content-aware upsampling.

Xu, Wen, Zhao, Zhang, Zhao, Tang, Yang, Chen: "CARes-UNet: Content-aware residual UNet for lesion
segmentation of COVID-19 from chest CT images", Medical Physics 2021 (doi 10.1002/mp.15231). Written
from the paper and, where its figure 1 leaves the layers open (the residual block behind every
strided convolution, the numbers of channels), from facts about the published code; no line of it is
taken. CARAFE is that of Wang, Chen, Xu, Liu, Loy, Lin: "CARAFE: Content-Aware ReAssembly of
FEatures", ICCV 2019 (arXiv 1905.02188).
"""

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.nets.resnet import ResNetBlock
from torch import Tensor, nn

from .base import SegmentationNetwork, check_choice, check_size
from .blocks import UPSAMPLINGS, make_upsampling
from .registration import register

LEVELS = 5
COMPRESSED_CHANNELS = 64  # C_m of CARAFE
SCALE = 2  # sigma: how many times the output is as high and as wide
REASSEMBLY_SIZE = 5  # k_up: the neighbourhood that an output pixel is a weighted mean of
PREDICTION_SIZE = 3  # k_encoder: the neighbourhood that its weights are predicted from


class CARAFE(nn.Module):
    """Double the size of a map: an output pixel is a weighted mean of 5 x 5 source pixels.

    The weights are a softmax over these 25 pixels, predicted from the map and the same for all
    channels; beyond the border the map is zero. A 1x1 convolution to `out_channels` follows.

    Two things keep it small, and both are exact. The 1x1 convolution runs before the reassembly:
    mixtures of channels and weighted means of pixels commute, only the bias waits for the end. And
    the 25 neighbours are added up one by one, in place, where unfolding copies the map 25 times.
    The backward pass keeps views of one map and of one set of weights, and no product.

    `compressed_channels`, C_m, is how many the weights are predicted from.
    """

    def __init__(self, in_channels: int, out_channels: int, compressed_channels: int = 64) -> None:
        super().__init__()
        self.scale = SCALE  # TorchScript knows attributes, but no names of the module
        self.size = REASSEMBLY_SIZE
        self.compress = nn.Conv2d(in_channels, compressed_channels, kernel_size=1)
        self.predict = nn.Conv2d(
            compressed_channels, SCALE**2 * REASSEMBLY_SIZE**2, PREDICTION_SIZE, padding=PREDICTION_SIZE // 2
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


def conv_block(in_channels: int, out_channels: int, residual: bool, stride: int = 1) -> nn.Module:
    """Build a 3x3 convolution with batch normalisation and ReLU, then a residual block.

    Not `residual`, that block has the same two convolutions without the shortcut around them.
    """
    if residual:
        body: nn.Module = ResNetBlock(out_channels, out_channels, spatial_dims=2)
    else:
        body = nn.Sequential(_convolution(out_channels, out_channels), _convolution(out_channels, out_channels))
    return nn.Sequential(_convolution(in_channels, out_channels, stride), body)


def _convolution(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    return Convolution(
        spatial_dims=2,
        in_channels=in_channels,
        out_channels=out_channels,
        strides=stride,
        kernel_size=3,
        adn_ordering="NA",
        norm="batch",
        act="relu",
        bias=False,
    )


class CAResUpBlock(nn.Module):
    """Decoder level: upsampling to half the channels, concatenation to the skip, `conv_block`."""

    def __init__(self, in_channels: int, out_channels: int, residual: bool, upsampling: str) -> None:
        super().__init__()
        # A narrow network has fewer channels than the paper compresses to.
        compressed = min(COMPRESSED_CHANNELS, in_channels)
        self.up = (
            CARAFE(in_channels, out_channels, compressed)
            if upsampling == "carafe"
            else make_upsampling(upsampling, in_channels, out_channels)
        )
        self.body = conv_block(2 * out_channels, out_channels, residual)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map x (B, in_channels, H, W) and skip (B, out, 2H, 2W) to (B, out, 2H, 2W)."""
        return self.body(torch.cat([skip, self.up(x)], dim=1))


@register("cares_unet")
class CAResUNet(SegmentationNetwork):
    """CARes-UNet of Xu et al. 2021; 54,417,554 parameters at width 64.

    The paper's network ends in two maps, background and lesion, of which a softmax makes
    probabilities. A softmax over two classes sees only their difference, so this one keeps both
    projections and returns lesion - background as the one logit: its sigmoid is the softmax's
    probability of lesion.

    The published code puts a sigmoid on both maps before that softmax, which squeezes the
    probabilities into [0.27, 0.73]. It is no option here: the larger map stays the larger, so the
    mask at 0.5 is the same, and the loss loses its zero (see `DiceCrossEntropyLoss`). Nor are the
    1x1 shortcuts that its residual blocks have and never use (2,100,864 parameters).

    The levels have 1, 2, 4, 8 and 16 times the base width, which may be any number.

    Args:
        in_channels: see `SegmentationNetwork`.
        base_width: see `SegmentationNetwork`.
        dropout: see `SegmentationNetwork`.
        residual: whether blocks have shortcuts; false in an ablation.
        upsampling: "carafe", or in an ablation one of `make_upsampling`.
    """

    def __init__(
        self,
        in_channels: int = 1,
        base_width: int = 64,
        dropout: float = 0.0,
        residual: bool = True,
        upsampling: str = "carafe",
    ) -> None:
        super().__init__(base_width, dropout, width_multiple=1, size_multiple=2 ** (LEVELS - 1))
        check_choice("upsampling", upsampling, ("carafe", *UPSAMPLINGS))
        channels = [base_width * 2**level for level in range(LEVELS)]
        self.first = conv_block(in_channels, base_width, residual)
        self.stages = nn.ModuleList(
            nn.Sequential(conv_block(width, width, residual, stride=2), conv_block(width, 2 * width, residual))
            for width in channels[:-1]
        )
        self.ups = nn.ModuleList(
            CAResUpBlock(2 * width, width, residual, upsampling) for width in reversed(channels[:-1])
        )
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(base_width, 2, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, in_channels, H, W) to logits (B, 1, H, W), in both modes."""
        check_size(image, self.size_multiple)
        background, lesion = self.class_logits(image).split(1, dim=1)
        return lesion - background

    def class_logits(self, image: Tensor) -> Tensor:
        """Map images (B, in_channels, H, W) to maps (B, 2, H, W): background, lesion."""
        levels = [self.first(image)]
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        x = levels[-1]
        for index, up in enumerate(self.ups):
            x = up(x, levels[len(levels) - 2 - index])
        return self.out(self.dropout(x))
