"""Parameters of the comparison networks at full width,
added up layer by layer from the papers' tables."""

from __future__ import annotations

import itertools

import pytest
import torch

from scripts.networks.registry import create_network


def conv(before: int, after: int, kernel: int, bias: bool = True) -> int:
    return before * after * kernel**2 + bias * after


def cbr(before: int, after: int, kernel: int, bias: bool = False) -> int:
    """Convolution and the two parameters a channel of its norm."""
    return conv(before, after, kernel, bias) + 2 * after


def separable(before: int, after: int) -> int:
    return before * 9 + cbr(before, after, 1)


STEM = 7 * 7 * 2 * 64  # what a stem of three channels has more than one of one
RESNET34 = 21_797_672 - 513_000 - STEM  # the known count less the classifier of 1000 classes
RESNET50 = 25_557_032 - 2_049_000 - STEM


VGG16 = 138_357_544 - 102_764_544 - 16_781_312 - 4_097_000  # less the three layers that are fully connected


def fcn8s(in_channels: int = 1, classes: int = 1) -> int:
    convolutions = VGG16 - 9 * 64 * (3 - in_channels)
    scores = sum(conv(width, classes, 1) for width in (4096, 512, 256))
    return convolutions + conv(512, 4096, 7) + conv(4096, 4096, 1) + scores + 2 * conv(classes, classes, 4, False)


def pspnet() -> int:
    pyramid = conv(2048, 512, 1) + 3 * cbr(2048, 512, 1)
    main = cbr(4096, 512, 3) + conv(512, 1, 1)
    return RESNET50 + pyramid + main + cbr(1024, 256, 3) + conv(256, 1, 1)


def acfnet() -> int:
    main = cbr(2048, 512, 3) + cbr(512, 512, 1) + cbr(1024, 512, 3) + 2 * conv(512, 1, 1)
    return RESNET50 + main + cbr(1024, 256, 3) + conv(256, 1, 1)


def deeplabv3plus() -> int:
    aspp = cbr(2048, 256, 1) + 3 * separable(2048, 256) + conv(2048, 256, 1) + cbr(1280, 256, 1)
    return RESNET50 + aspp + cbr(256, 48, 1) + separable(304, 256) + separable(256, 256) + conv(256, 1, 1)


def ce_net() -> int:
    context = 3 * conv(512, 512, 3) + conv(512, 512, 1) + conv(512, 1, 1)
    decoder = 0
    for before, after in ((516, 256), (256, 128), (128, 64), (64, 64)):
        width = before // 4
        decoder += cbr(before, width, 1, True) + cbr(width, width, 3, True) + cbr(width, after, 1, True)
    return RESNET34 + context + decoder + conv(64, 32, 4) + conv(32, 32, 3) + conv(32, 1, 3)


def danet() -> int:
    position = 2 * conv(512, 64, 1) + conv(512, 512, 1) + 1
    return RESNET50 + 2 * cbr(2048, 512, 3) + position + 1 + 2 * cbr(512, 512, 3) + 3 * conv(512, 1, 1)


def cpfnet() -> int:
    guidance = 0
    for levels in ((64, 128, 256, 512), (128, 256, 512), (256, 512)):
        width, n = levels[0], len(levels)
        guidance += sum(cbr(c, width, 3) for c in levels) + n * separable(n * width, width) + cbr(n * width, width, 1)
    fusion = conv(512, 512, 3, False) + 3 * 2 * 512 + 2 * (2 * cbr(512, 256, 1) + conv(512, 2, 3)) + 1
    decoder = sum(cbr(a, a, 3) + cbr(a, b, 1) for a, b in ((512, 256), (256, 128), (128, 64), (64, 64)))
    return RESNET34 + guidance + fusion + decoder + cbr(64, 32, 3) + conv(32, 1, 1)


def linknet() -> int:
    decoder = 0
    for before, after in ((512, 256), (256, 128), (128, 64), (64, 32)):
        width = before // 4
        decoder += cbr(before, width, 1, True) + cbr(width, width, 3, True) + cbr(width, after, 1, True)
    return RESNET34 + decoder + cbr(32, 32, 3, True) + conv(32, 1, 2)


def fpn() -> int:
    pyramid = sum(conv(c, 256, 1) + conv(256, 256, 3) for c in (64, 128, 256, 512))
    return RESNET34 + pyramid + 4 * cbr(256, 128, 3) + 3 * cbr(128, 128, 3) + conv(128, 1, 1)


def unet_resnet34() -> int:
    decoder = 0
    for before, c in ((512, 256), (256, 128), (128, 64), (64, 64)):
        decoder += conv(before, c, 2) + cbr(2 * c, c, 3, True) + cbr(c, c, 3, True)
    return RESNET34 + decoder + conv(64, 32, 2) + 2 * cbr(32, 32, 3, True) + conv(32, 1, 1)


def segnet() -> int:
    """VGG-16's thirteen convolutions, and as many back."""
    down = [1, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    up = [512, 512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64, 64, 64]
    return sum(cbr(a, b, 3, True) for path in (down, up) for a, b in itertools.pairwise(path)) + conv(64, 1, 3)


def f3net() -> int:
    squeeze = sum(cbr(c, 64, 1, True) for c in (256, 512, 1024, 2048))
    return RESNET50 + squeeze + 2 * 3 * 8 * cbr(64, 64, 3, True) + 6 * conv(64, 1, 3)


def scrn() -> int:
    reductions = 2 * sum(cbr(c, 32, 1) + 2 * cbr(32, 32, 3) for c in (256, 512, 1024, 2048))
    unit = sum(
        cbr((2 + n) * 32, 32, 3) + cbr(32, 32, 3) + 2 * cbr(32, 32, 3) + 2 * n * cbr(32, 32, 1) for n in (3, 2, 1, 0)
    )
    head = 3 * (cbr(32, 32, 3) + cbr(64, 64, 3) + cbr(64, 32, 1)) + cbr(32, 32, 3) + conv(32, 1, 1)
    return RESNET50 + reductions + 4 * unit + 2 * head


def attention_unet() -> int:
    total, before = conv(64, 1, 1), 1
    for c in (64, 128, 256, 512, 1024):
        total += cbr(before, c, 3, True) + cbr(c, c, 3, True)
        before = c
    for c in (64, 128, 256, 512):  # up, gate, merge by an instance norm without parameters and a PReLU
        total += cbr(2 * c, c, 3, True) + 2 * cbr(c, c // 2, 1, True) + cbr(c // 2, 1, 1, True)
        total += conv(2 * c, c, 3) + 1
    return total


def unet() -> int:
    f = (64, 128, 256, 512, 1024)
    total, before = conv(64, 1, 1), 1
    for c in f:
        total += cbr(before, c, 3, True) + cbr(c, c, 3, True)
        before = c
    for level in range(4):
        up = f[level + 1] if level == 0 else f[level + 1] // 2  # MONAI does not halve at the finest level
        total += conv(f[level + 1], up, 2) + cbr(f[level] + up, f[level], 3, True) + cbr(f[level], f[level], 3, True)
    return total


def plain_conv_unet() -> int:
    """The eight stages of nnU-Net's plan for 512 x 512; MONAI's convolutions have no bias."""
    f = (32, 64, 128, 256, 512, 512, 512, 512)
    total, before = conv(32, 1, 1), 1
    for c in f:
        total += cbr(before, c, 3) + cbr(c, c, 3)
        before = c
    for below, c in zip(f[:0:-1], f[-2::-1], strict=True):
        total += conv(below, c, 2, False) + cbr(2 * c, c, 3) + cbr(c, c, 3)
    return total


def unetpp() -> int:
    f = (32, 64, 128, 256, 512)
    total, before = 4 * conv(32, 1, 1), 1
    for c in f:
        total += cbr(before, c, 3, True) + cbr(c, c, 3, True)
        before = c
    for level in range(4):
        up = f[level + 1] if level == 0 else f[level + 1] // 2  # MONAI does not halve at the finest level
        for column in range(1, 5 - level):
            total += conv(f[level + 1], up, 2) + cbr(column * f[level] + up, f[level], 3, True)
            total += cbr(f[level], f[level], 3, True)
    return total


@pytest.mark.parametrize(
    ("name", "by_hand", "count"),
    [
        ("acfnet", acfnet, 40_283_843),
        ("attention_unet", attention_unet, 31_739_185),
        ("ce_net", ce_net, 28_996_821),
        ("cpfnet", cpfnet, 31_577_254),
        ("danet", danet, 47_428_677),
        ("deeplabv3plus", deeplabv3plus, 26_671_057),
        ("f3net", f3net, 25_530_438),
        ("fcn8s", fcn8s, 134_264_291),
        ("fpn", fpn, 25_509_441),
        ("linknet", linknet, 21_617_121),
        ("plain_conv_unet", plain_conv_unet, 46_309_441),
        ("pspnet", pspnet, 48_935_618),
        ("scrn", scrn, 25_220_226),
        ("segnet", segnet, 29_479_489),
        ("unet", unet, 31_112_065),
        ("unet_resnet34", unet_resnet34, 24_446_401),
        ("unetpp", unetpp, 9_118_756),
    ],
)
def test_parameters(name, by_hand, count: int) -> None:
    with torch.device("meta"):
        network = create_network(name)
    assert sum(p.numel() for p in network.parameters()) == by_hand() == count


@pytest.mark.parametrize("stride", [16, 8])
def test_three_classes_from_an_image_and_its_prior(stride: int) -> None:
    """DeepLabV3+ and FCN-8s in the place of MC-UNet; the stride costs no parameter."""
    with torch.device("meta"):
        deeplab = create_network("deeplabv3plus", in_channels=2, out_channels=3, output_stride=stride)
        fcn = create_network("fcn8s", in_channels=2, out_channels=3)
    more = 7 * 7 * 64 + 2 * (256 + 1)
    assert sum(p.numel() for p in deeplab.parameters()) == deeplabv3plus() + more == 26_674_707
    assert sum(p.numel() for p in fcn.parameters()) == fcn8s(2, 3) == 134_274_857
