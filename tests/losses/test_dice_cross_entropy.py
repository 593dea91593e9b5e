"""Dice and cross entropy of two classes from one logit: by hand, the formulas in float64,
the published floor."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scripts.losses.dice_cross_entropy import DiceCrossEntropyLoss
from scripts.transforms.items import UNKNOWN

SMOOTH = 1e-4


def label_of(*columns: int) -> torch.Tensor:
    """One 4 x 4 image a number: its first columns are lesion; no edge is marked. (B, 2, 4, 4)."""
    label = torch.zeros(len(columns), 2, 4, 4)
    for image, count in zip(label, columns, strict=True):
        image[0, :, :count] = 1
    return label


def logits_of(*columns: int, size: float = 60.0) -> torch.Tensor:
    """Logits that are sure, by `size`, of these first columns. (B, 1, 4, 4)."""
    return size * (2 * label_of(*columns)[:, :1] - 1)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(4, 1, 8, 6, generator=generator)
    return logits, (torch.rand(4, 2, 8, 6, generator=generator) < 0.3).float()


def formula(maps: np.ndarray, mask: np.ndarray, activation: bool = False) -> tuple[float, float]:
    """Dice loss and cross entropy of two maps (B, 2, H, W), class by class and image by image,
    in float64.

    With `activation` the maps go through a sigmoid before the softmax, as in the published code.
    """
    maps = maps.astype(np.float64)
    if activation:
        maps = 1 / (1 + np.exp(-maps))
    exponential = np.exp(maps - maps.max(axis=1, keepdims=True))
    p = exponential / exponential.sum(axis=1, keepdims=True)
    dice, entropy = [], []
    for image, truth in zip(p, mask[:, 0].astype(np.float64), strict=True):
        for predicted, target in ((image[0], 1 - truth), (image[1], truth)):
            dice.append((2 * (predicted * target).sum() + SMOOTH) / (predicted.sum() + target.sum() + SMOOTH))
        entropy.append(-np.log(np.where(truth == 1, image[1], image[0])).mean())
    return 1 - float(np.mean(dice)), float(np.mean(entropy))


# -------------------------------------------------------------------------------------------- by
# hand


def test_undecided_by_hand() -> None:
    """p = 1/2 everywhere and 8 of 16 pixels lesion:
    Dice is (2 * 4 + s) / (8 + 8 + s) for both classes, CE is ln 2."""
    loss = DiceCrossEntropyLoss()(torch.zeros(1, 1, 4, 4), label_of(2))
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1 - (8 + SMOOTH) / (16 + SMOOTH) + math.log(2), abs=1e-6)


def test_a_column_too_many_by_hand() -> None:
    """4 pixels of lesion, 8 predicted with p = sigmoid(5), the other 8 pixels with 1 - p.

    Lesion: 4 p / (8 p + 8 (1 - p) + 4), background: (4 (1 - p) + 8 p) / (8 + 12), cross entropy: 4
        of 16 wrong.
    """
    p = 1 / (1 + math.exp(-5))
    lesion = (2 * 4 * p + SMOOTH) / (8 + 4 + SMOOTH)
    background = (2 * (4 * (1 - p) + 8 * p) + SMOOTH) / (8 + 12 + SMOOTH)
    entropy = -(12 * math.log(p) + 4 * math.log(1 - p)) / 16
    expected = 1 - (lesion + background) / 2 + entropy
    assert expected == pytest.approx(1 - (2 / 3 + 4 / 5) / 2 + 5 / 4, abs=0.02)
    loss = DiceCrossEntropyLoss()(logits_of(2, size=5.0), label_of(1))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_images_count_one_by_one() -> None:
    """Dice is that of an image, not of the batch: right (1),
    and a lesion of one column missed (0 and 24 / 28)."""
    logits, label = logits_of(2, 0, size=30.0), label_of(2, 1)
    dice = (1 + 1 + SMOOTH / (4 + SMOOTH) + (24 + SMOOTH) / (28 + SMOOTH)) / 4
    entropy = (0 + 30 * 4 / 16) / 2
    assert DiceCrossEntropyLoss()(logits, label).item() == pytest.approx(1 - dice + entropy, abs=1e-5)


@pytest.mark.parametrize("columns", [0, 1, 2, 4])
def test_perfect_prediction_is_zero(columns: int) -> None:
    """Also where one of the classes is not there."""
    assert DiceCrossEntropyLoss()(logits_of(columns), label_of(columns)).item() == pytest.approx(0, abs=1e-6)


def test_the_published_floor_is_not_ours() -> None:
    """Sigmoid and softmax keep p below 1 / (1 + 1/e) = 0.731, however sure the network is:
    0.3133 + 0.2689 remain."""
    label, sure = label_of(2, 2), logits_of(2, 2)
    maps = np.concatenate([-sure.numpy(), sure.numpy()], axis=1)
    dice, entropy = formula(maps, label.numpy(), activation=True)
    assert entropy == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-9)
    assert entropy == pytest.approx(0.3133, abs=5e-5)
    assert dice == pytest.approx(1 - 1 / (1 + math.exp(-1)), abs=1e-5)
    assert formula(maps, label.numpy()) == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9))
    assert DiceCrossEntropyLoss()(sure, label).item() < 1e-6


# -------------------------------------------------------------------------------------- the
# formulas


@pytest.mark.parametrize("seed", range(3))
def test_value_is_the_formula_of_two_maps(seed: int) -> None:
    """Whatever the two maps are whose difference the network returns."""
    logits, label = batch(seed)
    background = np.random.default_rng(seed).normal(size=logits.shape)
    maps = np.concatenate([background, background + logits.numpy()], axis=1)
    assert DiceCrossEntropyLoss()(logits, label).item() == pytest.approx(sum(formula(maps, label.numpy())), abs=1e-5)


def test_gradient_is_the_derivative() -> None:
    logits, label = batch()
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(9))
    leaf = logits.clone().requires_grad_()
    DiceCrossEntropyLoss()(leaf, label).backward()
    slope = (leaf.grad * direction).sum().item()

    def value_at(step: float) -> float:
        moved = (logits.double() + step * direction).numpy()
        return sum(formula(np.concatenate([np.zeros_like(moved), moved], axis=1), label.numpy()))

    assert slope == pytest.approx((value_at(1e-6) - value_at(-1e-6)) / 2e-6, rel=1e-3)


def test_processes_with_equal_batches_optimise_the_whole_batch() -> None:
    logits, label = batch()
    loss = DiceCrossEntropyLoss()
    halves = [loss(logits[part], label[part]).item() for part in (slice(0, 2), slice(2, 4))]
    assert sum(halves) / 2 == pytest.approx(loss(logits, label).item(), abs=1e-6)


def test_the_edge_is_not_looked_at() -> None:
    logits, label = batch()
    other = label.clone()
    other[:, 1] = 1 - other[:, 1]
    assert torch.equal(DiceCrossEntropyLoss()(logits, label), DiceCrossEntropyLoss()(logits, other))


def test_low_precision_is_summed_in_float32() -> None:
    logits, label = batch()
    low = logits.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = DiceCrossEntropyLoss()(low, label.bool())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, DiceCrossEntropyLoss()(low.float(), label), rtol=0, atol=0)
    loss.backward()
    assert low.grad.isfinite().all()


@pytest.mark.parametrize(
    ("logits", "label"),
    [
        ((2, 6, 4, 4), (2, 2, 4, 4)),
        ((2, 2, 4, 4), (2, 2, 4, 4)),
        ((2, 1, 4, 4), (2, 1, 4, 4)),
        ((2, 1, 4, 4), (1, 2, 4, 4)),
        ((2, 1, 4, 4), (2, 2, 4, 8)),
    ],
)
def test_other_shapes_are_refused(logits: tuple[int, ...], label: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        DiceCrossEntropyLoss()(torch.zeros(logits), torch.zeros(label))


def test_soft_labels_are_no_background() -> None:
    logits, edge = torch.full((1, 1, 8, 8), 1.5), torch.zeros(1, 1, 8, 8)
    losses = [
        float(DiceCrossEntropyLoss()(logits, torch.cat([torch.full_like(edge, g), edge], 1))) for g in (0, 0.5, 1)
    ]
    assert losses[0] > losses[1] > losses[2]
    lesion = 1 / (1 + math.exp(-1.5))
    pairs = ((1 - lesion, 0.5), (lesion, 0.5))
    dice = sum((2 * 64 * p * g + 1e-4) / (64 * (p + g) + 1e-4) for p, g in pairs) / 2
    entropy = -sum(g * math.log(p) for p, g in pairs)
    assert losses[1] == pytest.approx(1 - dice + entropy, rel=1e-5)


def test_unknown_pixels_count_nothing() -> None:
    """One column of four is unknown: the loss is that of the other three alone."""
    logits, label = logits_of(2, 0, size=3.0).requires_grad_(), label_of(1, 2)
    label[:, 0, :, 1] = UNKNOWN
    loss = DiceCrossEntropyLoss()(logits, label)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[..., [0, 2, 3]].all()
    assert not logits.grad[..., 1].any()
    rest = DiceCrossEntropyLoss()(logits[..., [0, 2, 3]], label[..., [0, 2, 3]])
    assert loss.item() == pytest.approx(rest.item(), abs=1e-6)
    assert DiceCrossEntropyLoss()(logits, torch.full_like(label, UNKNOWN)).item() == 0
