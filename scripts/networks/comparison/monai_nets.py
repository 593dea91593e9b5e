"""MONAI's U-Net, UNet++, Attention U-Net and nnU-Net's network with this bundle's arguments.

Arguments: see `SegmentationNetwork`; dropout is that of single values after every convolution, and
the levels have 1, 2, 4, 8 and 16 times the base width where nothing else is said.
"""

import torch
from monai.networks.nets import AttentionUnet, BasicUNet, BasicUNetPlusPlus, DynUNet
from torch import Tensor

from ...errors import SettingError
from ..base import SegmentationNetwork, check_size
from ..registration import register

LEVELS = (1, 2, 4, 8, 16)  # channels of the five levels over the base width


@register("unet")
class UNet(BasicUNet):
    """U-Net (Ronneberger et al. 2015) by MONAI; 31,112,065 parameters. Images from 32 x 32 on."""

    edge_heads = 0
    mask_heads = 0
    size_multiple = 1
    deep_supervision = False

    def __init__(self, in_channels: int = 1, out_channels: int = 1, base_width: int = 64, dropout: float = 0.0) -> None:
        features = [base_width * factor for factor in (*LEVELS, 1)]
        super().__init__(
            spatial_dims=2, in_channels=in_channels, out_channels=out_channels, features=features, dropout=dropout
        )


@register("unetpp")
class UNetPlusPlus(SegmentationNetwork):
    """UNet++ (Zhou et al. 2018) by MONAI; 9,118,756 parameters. Images of any size from 32 x 32 on.

    The heads are the three shallower nested decoders, under supervision by the mask as in the
    paper. Deep supervision of more than one channel is refused with a ValueError.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        base_width: int = 32,
        dropout: float = 0.0,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__(base_width, dropout, width_multiple=1, mask_heads=3, deep_supervision=deep_supervision)
        if deep_supervision and out_channels != 1:
            raise SettingError(f"out_channels is {out_channels}; expected with deep supervision: 1")
        features = [base_width * factor for factor in (*LEVELS, 1)]
        self.network = BasicUNetPlusPlus(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=out_channels,
            features=features,
            dropout=dropout,
            deep_supervision=True,
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, in_channels, H, W) to logits, the map of the deepest nested decoder.

        The heads of training mode: the maps of the decoders of depth 1, 2 and 3.
        """
        maps = self.network(image)
        if not (self.training and self.deep_supervision):
            return maps[3]
        return torch.cat([maps[3], maps[0], maps[1], maps[2]], dim=1)


@register("attention_unet")
class AttentionUNet(AttentionUnet):
    """Attention U-Net (Oktay et al. 2018) by MONAI; 31,739,185 parameters, dropout everywhere."""

    edge_heads = 0
    mask_heads = 0
    deep_supervision = False

    def __init__(self, in_channels: int = 1, out_channels: int = 1, base_width: int = 64, dropout: float = 0.0) -> None:
        super().__init__(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=[base_width * factor for factor in LEVELS],
            strides=(2, 2, 2, 2),
            dropout=dropout,
        )
        self.size_multiple = 16  # here and not in the class, where TorchScript does not see it

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, in_channels, H, W) to logits (B, out_channels, H, W)."""
        check_size(image, self.size_multiple)
        return self.model(image)


@register("plain_conv_unet")
class PlainConvUNet(DynUNet):
    """nnU-Net's plain 2-D U-Net (Isensee et al. 2021) as MONAI's DynUNet; 46,309,441 parameters.

    That is its plan for slices of 512 x 512: eight stages, the channels double from 32 up to 512.
    Images need sides of a multiple of 2 ** (stages - 1). Neither nnU-Net's loss and deep
    supervision nor its training are part of it.
    """

    edge_heads = 0
    mask_heads = 0

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        base_width: int = 32,
        dropout: float = 0.0,
        stages: int = 8,
    ) -> None:
        down = [2] * (stages - 1)
        super().__init__(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=[3] * stages,
            strides=[1, *down],
            upsample_kernel_size=down,
            filters=[min(16 * base_width, base_width * 2**stage) for stage in range(stages)],
            dropout=dropout or None,
        )
        self.size_multiple = 2 ** (stages - 1)  # see AttentionUNet

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, in_channels, H, W) to logits (B, out_channels, H, W)."""
        check_size(image, self.size_multiple)
        return self.output_block(self.skip_layers(image))  # TorchScript knows no super().forward
