"""Inf-Net's loss against numpy loops in float64 written from the equations,
and against figures by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scripts.errors import UserError
from scripts.losses.structure import InfNetLoss, structure_loss
from scripts.transforms.items import UNKNOWN


def batch(seed: int = 0, channels: int = 5, size: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and soft labels, mask and edge, larger than the neighbourhood;
    the images differ in infection."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.zeros(3, 2, size, size)
    label[0, 0, 5:30, 8:20] = 1
    label[1, 0, 10:13, 2:39] = torch.rand(3, 37, generator=generator)
    label[:, 1] = (torch.rand(3, size, size, generator=generator) < 0.1).float()
    return 2 * torch.randn(3, channels, size, size, generator=generator), label


def weights_of(g: np.ndarray) -> np.ndarray:
    """w = 1 + 5 |mean of G over 31 x 31 pixels, 0 outside - G|, one pixel at a time."""
    padded = np.pad(g, 15)
    w = np.empty_like(g)
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            w[i, j] = 1 + 5 * abs(padded[i : i + 31, j : j + 31].sum() / 961 - g[i, j])
    return w


def cross_entropy(z: np.ndarray, g: np.ndarray) -> np.ndarray:
    p = 1 / (1 + np.exp(-z))
    return -(g * np.log(p) + (1 - g) * np.log(1 - p))


def weighted_iou(z: np.ndarray, g: np.ndarray) -> float:
    p, w = 1 / (1 + np.exp(-z)), weights_of(g)
    both = (w * p * g).sum()
    return 1 - (both + 1) / ((w * (p + g)).sum() - both + 1)


def weighted_cross_entropy(z: np.ndarray, g: np.ndarray) -> float:
    w = weights_of(g)
    return (w * cross_entropy(z, g)).sum() / w.sum()


def segmentation(logits: np.ndarray, masks: np.ndarray, legacy: bool = False) -> float:
    """L_seg of one map of every image of the batch."""
    pairs = list(zip(logits, masks, strict=True))
    iou = np.mean([weighted_iou(z, g) for z, g in pairs])
    if legacy:
        return iou + cross_entropy(logits, masks).mean()
    return iou + np.mean([weighted_cross_entropy(z, g) for z, g in pairs])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_total_is_the_equations(seed: int, legacy: bool) -> None:
    logits, label = batch(seed)
    z, (mask, edge) = logits.double().numpy(), label.double().numpy().transpose(1, 0, 2, 3)
    expected = sum(segmentation(z[:, k], mask, legacy) for k in (0, 2, 3, 4)) + cross_entropy(z[:, 1], edge).mean()
    assert InfNetLoss(legacy_bce=legacy)(logits, label).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("legacy", [False, True])
def test_main_map_alone(legacy: bool) -> None:
    logits, label = batch(channels=1)
    expected = segmentation(logits[:, 0].double().numpy(), label[:, 0].double().numpy(), legacy)
    assert InfNetLoss(legacy_bce=legacy)(logits, label).item() == pytest.approx(expected, rel=1e-5)


def test_weights_of_one_pixel_by_hand() -> None:
    """One infected pixel in 3 x 3: it weighs 1 + 5 * 960/961, the others 1 + 5/961;
    p = 1/2 everywhere."""
    target = torch.zeros(1, 1, 3, 3)
    target[0, 0, 1, 1] = 1
    inside, outside = 1 + 5 * 960 / 961, 1 + 5 / 961
    both = inside / 2
    either = inside * 1.5 + 8 * outside * 0.5 - both
    expected = math.log(2) + 1 - (both + 1) / (either + 1)
    assert structure_loss(torch.zeros(1, 1, 3, 3), target).item() == pytest.approx(expected, rel=1e-6)


def test_a_miss_costs_by_its_weight_unlike_in_the_published_code() -> None:
    """Cross-entropy log(1 + e^4) at the infected pixel, log(1 + e^-4) at the 8 others,
    weights as above.

    In the published code the weights cancel: a wrong pixel costs the same inside an area and at its
        boundary.
    """
    target = torch.zeros(1, 1, 3, 3)
    target[0, 0, 1, 1] = 1
    logits = torch.full((1, 1, 3, 3), -4.0)
    inside, outside = 1 + 5 * 960 / 961, 1 + 5 / 961
    miss, hit, p = math.log1p(math.exp(4)), math.log1p(math.exp(-4)), 1 / (1 + math.exp(4))
    iou = 1 - (inside * p + 1) / (inside + 8 * outside * p + 1)
    weighted = (inside * miss + 8 * outside * hit) / (inside + 8 * outside)
    assert structure_loss(logits, target).item() == pytest.approx(weighted + iou, rel=1e-5)
    plain = (miss + 8 * hit) / 9
    assert structure_loss(logits, target, legacy_bce=True).item() == pytest.approx(plain + iou, rel=1e-5)
    assert weighted > 3 * plain


def test_every_image_counts_the_same() -> None:
    """The sums run over each image alone: the loss of a batch is the mean of its images'."""
    logits, label = batch()
    alone = [InfNetLoss()(logits[k : k + 1], label[k : k + 1]).item() for k in range(3)]
    assert max(alone) - min(alone) > 0.1
    assert InfNetLoss()(logits, label).item() == pytest.approx(np.mean(alone), rel=1e-5)


def test_perfect_maps_cost_nothing() -> None:
    _, label = batch()
    label = label.round()
    sure = 60 * (2 * label - 1)
    logits = torch.cat([sure[:, :1], sure[:, 1:], *[sure[:, :1]] * 3], dim=1)
    assert InfNetLoss()(logits, label).item() == pytest.approx(0, abs=1e-5)


def test_each_channel_has_its_target() -> None:
    """A sure and right channel made sure and wrong raises the loss whichever it is."""
    _, label = batch()
    mask, edge = (60 * (2 * label.round() - 1)).split(1, dim=1)
    logits = torch.cat([mask, edge, mask, mask, mask], dim=1)
    for channel in range(5):
        wrong = logits.clone()
        wrong[:, channel] *= -1
        assert InfNetLoss()(wrong, label.round()).item() > 10


def test_other_numbers_of_heads() -> None:
    logits, label = batch(channels=4)
    z, (mask, edge) = logits.double().numpy(), label.double().numpy().transpose(1, 0, 2, 3)
    expected = segmentation(z[:, 0], mask) + segmentation(z[:, 3], mask)
    expected += cross_entropy(z[:, 1], edge).mean() + cross_entropy(z[:, 2], edge).mean()
    assert InfNetLoss(edge_heads=2, mask_heads=1)(logits, label).item() == pytest.approx(expected, rel=1e-5)
    no_edge = sum(segmentation(z[:, k], mask) for k in range(4))
    assert InfNetLoss(edge_heads=0, mask_heads=3)(logits, label).item() == pytest.approx(no_edge, rel=1e-5)


def test_gradient_is_the_derivative() -> None:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, 2, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 2, 5, 6, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(structure_loss, (logits, target))


def test_low_precision_logits_are_summed_in_float32() -> None:
    logits, label = batch()
    for dtype in (torch.bfloat16, torch.float16):
        low = logits.to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss = InfNetLoss()(low, label)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(InfNetLoss()(low.detach().float(), label).item(), abs=1e-6)
        loss.backward()
        assert low.grad.isfinite().all()
        assert low.grad.flatten(2).any(dim=2).all()


@pytest.mark.parametrize(
    ("logits", "label"),
    [
        ((2, 4, 8, 8), (2, 2, 8, 8)),
        ((2, 5, 8, 8), (2, 1, 8, 8)),
        ((2, 5, 8, 8), (1, 2, 8, 8)),
        ((2, 1, 8, 8), (2, 2, 8, 4)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(logits: tuple[int, ...], label: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        InfNetLoss()(torch.zeros(logits), torch.zeros(label))


@pytest.mark.parametrize(("text", "expected"), [("true", True), ("false", False)])
def test_switch_from_the_command_line(text: str, expected: bool) -> None:
    assert InfNetLoss(legacy_bce=text).legacy_bce is expected
    with pytest.raises(UserError):
        InfNetLoss(legacy_bce="perhaps")


@pytest.mark.parametrize("legacy", [False, True])
def test_unknown_pixels_count_nothing(legacy: bool) -> None:
    """Whatever the maps hold there: as weight 0 in the sums by hand, without a gradient."""
    logits, label = batch()
    label[:, 0, 20:28, 10:18] = UNKNOWN
    unknown = (label[:, :1] < 0).expand_as(logits)
    logits.requires_grad_()
    loss = InfNetLoss(legacy_bce=legacy)(logits, label)
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[unknown].any()
    assert logits.grad[~unknown].all()
    far = InfNetLoss(legacy_bce=legacy)(logits.detach().masked_fill(unknown, -500.0), label)
    assert far.item() == pytest.approx(loss.item(), rel=1e-6)

    z, (mask, edge) = logits.detach().double().numpy(), label.double().numpy().transpose(1, 0, 2, 3)
    known, seen = (mask >= 0).astype(float), mask.clip(0)
    expected = 0.0
    for one, g, e, k in zip(z, seen, edge, known, strict=True):
        w = weights_of(g) * k
        for channel in (0, 2, 3, 4):
            p = 1 / (1 + np.exp(-one[channel]))
            both, entropy = (w * p * g).sum(), cross_entropy(one[channel], g)
            expected += 1 - (both + 1) / ((w * (p + g)).sum() - both + 1)
            expected += np.average(entropy, weights=k if legacy else w)
        expected += np.average(cross_entropy(one[1], e), weights=k)
    assert loss.item() == pytest.approx(expected / len(z), rel=1e-5)
    assert structure_loss(logits, torch.full_like(logits, UNKNOWN)).item() == 0
