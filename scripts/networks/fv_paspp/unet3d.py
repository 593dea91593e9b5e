"""A 3-D U-Net with feature variation (FV), PASPP and deep supervision.

The blocks are those of COVID-SegNet (Yan et al. 2020, arXiv 2004.10987), the U-Net is that of Cicek
et al. 2016 (arXiv 1606.06650). CT volumes have few, thick slices, so pooling halves the slices in
plane and leaves their number.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import SettingError
from ..base import SegmentationNetwork, check_choice, check_size
from ..registration import register
from .blocks3d import FeatureVariation, ProgressiveASPP, conv_block_3d

VARIATIONS = ("none", "se", "ce")
LEVELS = 5
IN_PLANE = (2, 2, 1)
MOST_HEADS = LEVELS - 2  # decoder levels below the main map, at 1/2, 1/4 and 1/8 of the size in plane
USUAL_HEADS = 2
FIRST_VARIED = 2  # FV stands before the convolutions of the third level and of those below


@register("fv_paspp_unet3d")
class FvPasppUNet3d(SegmentationNetwork):
    """The 3-D network; 36,104,387 parameters by default.

    Args:
        in_channels: see `SegmentationNetwork`.
        out_channels: see `SegmentationNetwork`.
        base_width: channels of the finest level (32 in the source); the others have 2, 4, 8 and 16
            times as many.
        variation: gate of the FV blocks, "se" or "ce" (`FeatureVariation`), or "none" for no such
            blocks.
        paspp: whether PASPP follows the coarsest level.
        heads: how many decoder levels have a head of their own, 0 to 3, the finest of those below
            the main map. True and False are the 2 and 0 of earlier versions.
        dropout: see `SegmentationNetwork`.
        deep_supervision: see `SegmentationNetwork`.

    Raises:
        ValueError: if an argument is outside what is expected.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        base_width: int = 32,
        variation: str = "se",
        paspp: bool = True,
        heads: int | bool = USUAL_HEADS,
        dropout: float = 0.0,
        deep_supervision: bool = True,
    ) -> None:
        count = USUAL_HEADS * heads if isinstance(heads, bool) else heads
        if not 0 <= count <= MOST_HEADS:
            raise SettingError(f"heads is {heads}; expected: 0 to {MOST_HEADS}")
        super().__init__(
            base_width,
            dropout,
            width_multiple=1,
            size_multiple=2 ** (LEVELS - 1),
            mask_heads=count,
            deep_supervision=deep_supervision,
        )
        check_choice("variation", variation, VARIATIONS)
        channels = [base_width * 2**level for level in range(LEVELS)]
        self.pool = nn.MaxPool3d(kernel_size=IN_PLANE)
        self.down = nn.ModuleList()
        for level, width in enumerate(channels):
            before = channels[level - 1] if level else in_channels
            varied = level >= FIRST_VARIED and variation != "none"
            vary: list[nn.Module] = [FeatureVariation(before, variation)] if varied else []
            self.down.append(nn.Sequential(*vary, *_two_convolutions(before, width)))
        self.bridge = ProgressiveASPP(channels[-1]) if paspp else nn.Identity()
        self.enlarge = nn.ModuleList()
        self.up = nn.ModuleList()
        for level in range(LEVELS - 2, -1, -1):
            width = channels[level]
            self.enlarge.append(nn.ConvTranspose3d(2 * width, width, kernel_size=IN_PLANE, stride=IN_PLANE))
            self.up.append(nn.Sequential(*_two_convolutions(2 * width, width)))
        self.dropout = nn.Dropout3d(dropout)
        self.out = nn.Conv3d(base_width, out_channels, kernel_size=1)
        self.heads = nn.ModuleList(nn.Conv3d(channels[level], 1, kernel_size=1) for level in range(count, 0, -1))

    def forward(self, image: Tensor) -> Tensor:
        """Map the volume (B, in_channels, H, W, D), any D, to logits (B, out_channels, H, W, D).

        The heads of training mode: the coarser first.
        """
        check_size(image, self.size_multiple)
        x = image
        encoded: list[Tensor] = []
        for level, down in enumerate(self.down):
            x = down(x if level == 0 else self.pool(x))
            encoded.append(x)
        x = self.bridge(x)
        decoded: list[Tensor] = []  # coarse to fine
        for index, (enlarge, up) in enumerate(zip(self.enlarge, self.up)):  # noqa: B905 - TorchScript knows no `strict`
            x = up(torch.cat([encoded[-2 - index], enlarge(x)], dim=1))
            decoded.append(x)
        main = self.out(self.dropout(x))
        if not (self.training and self.deep_supervision):
            return main
        maps = [main]
        # Interpolation and a 1x1x1 convolution are linear and its weights sum to one: they can
        # change places, and the convolution comes first because it is cheaper on the coarse grid.
        for index, head in enumerate(self.heads):
            coarse = head(decoded[index - 1 - len(self.heads)])
            maps.append(F.interpolate(coarse, size=image.shape[2:], mode="trilinear", align_corners=False))
        return torch.cat(maps, dim=1)


def _two_convolutions(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [conv_block_3d(in_channels, out_channels), conv_block_3d(out_channels, out_channels)]
