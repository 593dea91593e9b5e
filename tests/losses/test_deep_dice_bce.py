"""The loss of the 3-D network, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from scripts.losses.deep_dice_bce import DeepDiceBCELoss, InfectionAndLungsLoss

LOG3 = math.log(3.0)  # the logit of 3/4


def by_hand(p: list[float], g: list[float]) -> float:
    overlap = sum(a * b for a, b in zip(p, g, strict=True))
    dice = 1 - (2 * overlap + 1e-5) / (sum(p) + sum(g) + 1e-5)
    bce = -sum(b * math.log(a) + (1 - b) * math.log(1 - a) for a, b in zip(p, g, strict=True)) / len(p)
    return 0.5 * bce + dice


def maps(*values: float) -> torch.Tensor:
    """Logits of a batch of two volumes of 1 x 1 x 2 voxels, one channel."""
    return torch.tensor(values).view(2, 1, 1, 1, 2)


LABEL = maps(1.0, 0.0, 0.0, 0.0)
TRUTH = [1.0, 0.0, 0.0, 0.0]


def test_one_map_by_hand() -> None:
    """p = 3/4, 1/4, 1/4, 1/2: overlap 3/4, sums 7/4 and 1,
    so the Dice loss is 1 - (3/2) / (11/4) = 5/11."""
    loss = DeepDiceBCELoss()(maps(LOG3, -LOG3, -LOG3, 0.0), LABEL).item()
    bce = -(3 * math.log(0.75) + math.log(0.5)) / 4
    assert loss == pytest.approx(5 / 11 + 0.5 * bce, abs=1e-5)
    assert loss == pytest.approx(by_hand([0.75, 0.25, 0.25, 0.5], TRUTH), abs=1e-6)


def test_heads_share_the_other_half() -> None:
    main, first, second = maps(LOG3, -LOG3, -LOG3, 0.0), maps(0.0, 0.0, 0.0, 0.0), maps(-LOG3, LOG3, 0.0, 0.0)
    loss = DeepDiceBCELoss(2)(torch.cat([main, first, second], dim=1), LABEL).item()
    expected = (
        0.5 * by_hand([0.75, 0.25, 0.25, 0.5], TRUTH)
        + 0.25 * by_hand([0.5] * 4, TRUTH)
        + 0.25 * by_hand([0.25, 0.75, 0.5, 0.5], TRUTH)
    )
    assert loss == pytest.approx(expected, abs=1e-6)


def test_dice_is_that_of_the_batch() -> None:
    """The second volume has no lesion: alone its Dice loss would be 1,
    here it only adds to the sums."""
    loss = DeepDiceBCELoss()(maps(20.0, -20.0, -20.0, -20.0), LABEL).item()
    assert loss == pytest.approx(0.0, abs=1e-6)


def test_an_empty_truth_is_best_without_prediction() -> None:
    empty = torch.zeros_like(LABEL)
    assert DeepDiceBCELoss()(maps(-40.0, -40.0, -40.0, -40.0), empty).item() == pytest.approx(0.0, abs=1e-6)


def test_other_label_channels_are_left_alone() -> None:
    logits = maps(LOG3, -LOG3, -LOG3, 0.0)
    loss = DeepDiceBCELoss()
    assert loss(logits, torch.cat([LABEL, 1 - LABEL], dim=1)) == loss(logits, LABEL)


def test_half_precision_gives_float32_and_its_gradient() -> None:
    logits = torch.cat([maps(LOG3, -LOG3, -LOG3, 0.0)] * 3, dim=1).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = DeepDiceBCELoss()(logits, LABEL)
    assert loss.dtype == torch.float32
    loss.backward()
    assert logits.grad.any(dim=(0, 2, 3, 4)).all()


@pytest.mark.parametrize("logits", [torch.zeros(2, 2, 1, 1, 2), torch.zeros(1, 1, 1, 1, 2), torch.zeros(2, 1, 1, 2, 2)])
def test_what_does_not_fit_is_refused(logits: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected"):
        DeepDiceBCELoss(2)(logits, LABEL)


def test_lungs_beside_infection_by_hand() -> None:
    """Infection: as `DeepDiceBCELoss`. Lungs: two of four voxels are unknown and count as right."""
    infection, lungs, head = maps(LOG3, -LOG3, -LOG3, 0.0), maps(LOG3, 0.0, LOG3, 0.0), maps(0.0, 0.0, 0.0, 0.0)
    truth = maps(1.0, 0.0, -1.0, -1.0)
    loss = InfectionAndLungsLoss(1, lung_weight=2.0)(
        torch.cat([infection, lungs, head], dim=1), torch.cat([LABEL, truth], dim=1)
    )
    own = DeepDiceBCELoss(1)(torch.cat([infection, head], dim=1), LABEL)
    dice = 1 - (2 * 0.75 + 1e-5) / (0.75 + 0.5 + 1 + 1e-5)
    bce = -(math.log(0.75) + math.log(0.5)) / 4
    assert loss.item() == pytest.approx(own.item() + 2 * (dice + 0.5 * bce), abs=1e-6)


def test_unknown_lungs_give_no_gradient() -> None:
    logits = torch.cat([LABEL, maps(LOG3, 0.0, LOG3, 0.0)], dim=1).requires_grad_()
    InfectionAndLungsLoss(0)(logits, torch.cat([LABEL, maps(-1.0, -1.0, -1.0, -1.0)], dim=1)).backward()
    assert not logits.grad[:, 1].any()
    assert logits.grad[:, 0].any()


def test_lungs_without_their_truth_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels have 1 channels; expected: 2 \(infection, lungs\)"):
        InfectionAndLungsLoss(0)(torch.zeros(2, 2, 1, 1, 2), LABEL)
