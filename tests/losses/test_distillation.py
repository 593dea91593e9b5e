"""The distillation loss against hand calculations: labels, unknown pixels, a teacher that errs."""

from __future__ import annotations

import math

import pytest
import torch

from scripts.errors import UserError
from scripts.losses.cosupervision import CoSupervisionLoss
from scripts.losses.deep_dice_bce import DeepDiceBCELoss
from scripts.losses.distillation import DistillationLoss
from scripts.transforms.items import UNKNOWN


def loss(weight: float = 1.0, heads: int = 0) -> DistillationLoss:
    return DistillationLoss(CoSupervisionLoss(edge_heads=0, mask_heads=heads), weight)


def row(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


def label(mask: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
    return torch.cat([mask, torch.zeros_like(mask), taught], dim=1)


def logit(probability: torch.Tensor) -> torch.Tensor:
    return torch.logit(probability.double()).float()


def test_a_slice_without_label_learns_from_the_teacher_alone_by_hand() -> None:
    """p = 0.5, 0.2 and q = 0.8, 0.2; nothing is known, so that the hard loss is 1 whatever p is.

    KL: (0.8 ln(0.8/0.5) + 0.2 ln(0.2/0.5)) / 2; quotient: 0.3 / (0.7 + 1.0).
    """
    logits = logit(row(0.5, 0.2)).requires_grad_()
    value = loss(weight=2.0)(logits, label(row(UNKNOWN, UNKNOWN), row(0.8, 0.2)))
    divergence = (0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)) / 2
    assert value.item() == pytest.approx(1 + 2 * (divergence + 0.3 / 1.7), abs=1e-6)
    value.backward()
    assert logits.grad is not None
    assert logits.grad[0, 0, 0, 0] < 0  # towards the teacher's 0.8


def test_the_label_takes_the_place_of_a_teacher_that_decides_against_it() -> None:
    """Labels 1, 0, 1; the teacher errs on the first two pixels, and its 0.7 of the third stays."""
    p, mask = row(0.6, 0.3, 0.7), row(1.0, 0.0, 1.0)
    hard = 1 - 2 * (0.6 + 0.7) / (1.6 + 2)
    divergence = (-math.log(0.6) - math.log(0.7)) / 3
    apart = (0.4 + 0.3) / (1.6 + 1 + 0 + 0.7)
    value = loss()(logit(p), label(mask, row(0.1, 0.9, 0.7)))
    assert value.item() == pytest.approx(hard + divergence + apart, abs=1e-6)


def test_disputed_pixels_learn_from_the_teacher() -> None:
    logits = torch.zeros(1, 1, 1, 2, requires_grad=True)
    loss()(logits, label(row(0.0, UNKNOWN), row(0.0, 1.0))).backward()
    assert logits.grad is not None
    assert logits.grad[..., 1] < 0 < logits.grad[..., 0]


@pytest.mark.parametrize("empty", [True, False])
def test_it_is_the_hard_loss_where_the_student_agrees_or_the_teacher_has_no_weight(empty: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(2, 1, 8, 8, generator=generator) > 0.6).float() * (not empty)
    taught = (mask * 0.6 + 0.2) * (not empty)
    logits = torch.cat(
        [torch.logit(taught.double(), eps=1e-30).float().clamp(min=-200), torch.randn(2, 2, 8, 8)], dim=1
    )
    hard = CoSupervisionLoss(edge_heads=0, mask_heads=2)(logits, label(mask, taught)[:, :2])
    torch.testing.assert_close(loss(heads=2)(logits, label(mask, taught)), hard)
    torch.testing.assert_close(
        loss(0.0, heads=2)(-logits, label(mask, taught)), loss(0.0, heads=2).hard(-logits, label(mask, taught)[:, :2])
    )


def test_low_precision_is_left_and_other_losses_and_labels_are_refused() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss()(torch.zeros(1, 1, 4, 4, dtype=torch.bfloat16), torch.zeros(1, 3, 4, 4)).dtype == torch.float32
    with pytest.raises(ValueError, match="2 channels; expected: 3"):
        loss()(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 4, 4))
    with pytest.raises(UserError, match="DeepDiceBCELoss; expected: CoSupervisionLoss"):
        DistillationLoss(DeepDiceBCELoss())
    with pytest.raises(UserError, match="teacher_weight is -1"):
        loss(-1)
