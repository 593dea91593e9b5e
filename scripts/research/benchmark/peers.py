"""Networks that others use, with random weights, each as its users run it.

Their packages are optional, and installed without what they require in turn: the networks do not
need it, and it does not fit beside this bundle.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, prod
from pathlib import Path

from torch import nn

from ...networks.registry import create_network
from .timing import Plan

SCAN_SHAPE, SCAN_SPACING = (512, 512, 148), (0.7, 0.7, 2.0)
"""Voxels and millimetres of the scan that "per scan" is about, in x, y and z."""
ARCHITECTURES, LUNGMASK = "dynamic-network-architectures==0.4.4", "lungmask==0.2.22"
FEATURES_2D, FEATURES_3D = (32, 64, 128, 256, 512, 512, 512, 512), (32, 64, 128, 256, 320)
PATCH = (112, 112, 128)


@dataclass(frozen=True)
class Peer:
    """A network of others and how it is applied.

    Attributes:
        name: the row's name.
        build: makes the network; raises ModuleNotFoundError without its package.
        shape: of the images in a call, (B, 1, ...).
        per_scan: slices or patches of a scan, those of test-time augmentation included.
        package: what pip installs for it; "" where it comes with the bundle.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    per_scan: int
    package: str = ""


def list_peers(plan: Plan) -> list[Peer]:
    """Return MONAI's networks at our widths and sizes, and others in their published sizes.

    * nnU-Net: its 2-D plan for slices of 512 x 512; by default it averages over four flips.
    * lungmask: R231, 256 x 256, in batches of 20.
    * TotalSegmentator: `--fast` (task 297), which resamples to 3 mm and sees patches of
      112 x 112 x 128 (z, y, x) that overlap by a fifth, without flips.
    """
    shape, slices = (plan.batch, 1, plan.size, plan.size), SCAN_SHAPE[2]
    named = {"MONAI BasicUNet": "unet", "MONAI AttentionUnet": "attention_unet"}
    monai = [
        Peer(
            f"{label}, width {width}",
            partial(create_network, name, base_width=width),
            shape,
            slices,
        )
        for width in plan.widths
        for label, name in named.items()
    ]
    nnunet, total = "nnU-Net 2-D PlainConvUNet", "TotalSegmentator 3 mm PlainConvUNet"
    at_3_mm = [ceil(voxels * size / 3) for voxels, size in zip(SCAN_SHAPE, SCAN_SPACING, strict=True)]
    patches = count_patches(at_3_mm[::-1], PATCH, 0.8)
    return [
        *monai,
        Peer(f"{nnunet}, four flips", partial(plain_unet, FEATURES_2D, 2), (1, 1, 512, 512), 4 * slices, ARCHITECTURES),
        Peer(f"{nnunet}, no flips", partial(plain_unet, FEATURES_2D, 2), (1, 1, 512, 512), slices, ARCHITECTURES),
        Peer("lungmask U-Net", lungmask_unet, (20, 1, 256, 256), slices, LUNGMASK),
        Peer(total, partial(plain_unet, FEATURES_3D, 118, 3), (1, 1, *PATCH), patches, ARCHITECTURES),
    ]


def plain_unet(features: Sequence[int], classes: int, dimensions: int = 2) -> nn.Module:
    """Build nnU-Net's PlainConvUNet: a stage halves the size and holds two convolutions."""
    unet = importlib.import_module("dynamic_network_architectures.architectures.unet")
    network: nn.Module = unet.PlainConvUNet(
        input_channels=1,
        n_stages=len(features),
        features_per_stage=features,
        conv_op=nn.Conv2d if dimensions == 2 else nn.Conv3d,
        kernel_sizes=3,
        strides=[1] + [2] * (len(features) - 1),
        n_conv_per_stage=2,
        num_classes=classes,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d if dimensions == 2 else nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    return network


def lungmask_unet() -> nn.Module:
    """Build lungmask's U-Net as R231 has it, from its file alone.

    The package imports what the network does not need, and changes the filters of warnings.
    """
    package = importlib.util.find_spec("lungmask")
    file = Path(package.origin).with_name("resunet.py") if package and package.origin else None
    spec = importlib.util.spec_from_file_location("lungmask_resunet", file) if file else None
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("lungmask")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: nn.Module = module.UNet(n_classes=3, padding=True, depth=5, up_mode="upsample", batch_norm=True)
    return network


def count_patches(shape: Sequence[int], patch: Sequence[int], step: float) -> int:
    """Return how many patches nnU-Net's sliding window takes; what is smaller is padded.

    >>> count_patches([99, 120, 120], [112, 112, 128], 0.8)
    2
    """
    return prod(ceil(max(size - side, 0) / (side * step)) + 1 for size, side in zip(shape, patch, strict=True))
