"""The co-supervision loss: numbers by hand, Eq. 1-6 in float64, gradients, low precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss

from scripts.losses.cosupervision import CoSupervisionLoss

SURE = 60.0  # sigmoid(60) is 1 and sigmoid(-60) is 9e-27 in float32
THETA, BETA = 0.8, 0.4


def halves() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Left half, top half and left quarter of a 4 x 4 image, as (1, 1, 4, 4) masks of 8,
    8 and 4 pixels."""
    left, top, quarter = (torch.zeros(1, 1, 4, 4) for _ in range(3))
    left[..., :2] = 1
    top[..., :2, :] = 1
    quarter[..., :1] = 1
    return left, top, quarter


def sure(mask: torch.Tensor) -> torch.Tensor:
    """Logits whose probabilities are the mask."""
    return SURE * (2 * mask - 1)


def batch(seed: int = 0, heads: int = 5, size: int = 8, n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits (n, 1 + heads, size, size) and labels (n, 2, size,
    size) with unlike mask and edge."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 1 + heads, size, size, generator=generator)
    label = torch.rand(n, 2, size, size, generator=generator) < torch.tensor([0.4, 0.15]).view(1, 2, 1, 1)
    return logits, label.float()


# -------------------------------------------------------------------------------------------- by
# hand


@pytest.mark.parametrize(("form", "expected"), [("sum", 0.0), ("mean", 0.0), ("paper_literal", -1.6)])
def test_perfect_prediction(form: str, expected: float) -> None:
    mask, edge, _ = halves()
    logits = torch.cat([sure(mask), *[sure(edge)] * 2, *[sure(mask)] * 3], dim=1)
    loss = CoSupervisionLoss(loss_form=form)(logits, torch.cat([mask, edge], dim=1))
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("form", "expected"), [("sum", 1 + 0.8 * 2 + 0.4 * 3), ("mean", 2.2), ("paper_literal", 2.2)])
def test_all_wrong(form: str, expected: float) -> None:
    mask, edge, _ = halves()
    logits = -torch.cat([sure(mask), *[sure(edge)] * 2, *[sure(mask)] * 3], dim=1)
    loss = CoSupervisionLoss(loss_form=form)(logits, torch.cat([mask, edge], dim=1))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_half_overlap_by_hand() -> None:
    """Mask = left half (8), edge = left column (4).

    main top half: 2*4/16 = 1/2; edge heads: top half 2*2/12 = 1/3, left half 2*4/12 = 2/3;
    mask heads: left column 2*4/12 = 2/3, all 2*8/24 = 2/3, p = 1/2 everywhere 2*4/16 = 1/2.
    """
    left, top, column = halves()
    everything = torch.ones(1, 1, 4, 4)
    logits = torch.cat([sure(top), sure(top), sure(left), sure(column), sure(everything), 0 * everything], dim=1)
    label = torch.cat([left, column], dim=1)
    edge_loss = (1 - 1 / 3) + (1 - 2 / 3)
    mask_loss = (1 - 2 / 3) + (1 - 2 / 3) + (1 - 1 / 2)
    expected = 1 / 2 + 0.8 * edge_loss + 0.4 * mask_loss
    assert expected == pytest.approx(0.5 + 0.8 + 0.4 * 7 / 6)
    assert CoSupervisionLoss()(logits, label).item() == pytest.approx(expected, abs=1e-6)
    mean = 1 / 2 + 0.8 * edge_loss / 2 + 0.4 * mask_loss / 3
    assert CoSupervisionLoss(loss_form="mean")(logits, label).item() == pytest.approx(mean, abs=1e-6)


def test_main_map_alone_is_the_fusion_term() -> None:
    left, top, column = halves()
    for form in ("sum", "mean", "paper_literal"):
        loss = CoSupervisionLoss(loss_form=form)(sure(top), torch.cat([left, column], dim=1))
        assert loss.item() == pytest.approx(0.5, abs=1e-6)


def test_cross_entropy_is_added_by_its_weight() -> None:
    """Of known pixels only, and of the main map only."""
    logits, label = batch()
    label[0, 0, :2] = -1
    known = label[:, 0] >= 0
    probability = torch.sigmoid(logits[:, 0].double())
    each = -torch.where(label[:, 0] > 0, probability.log(), (1 - probability).log())
    expected = each[known].mean().item()
    plain, added = (CoSupervisionLoss(cross_entropy_weight=weight)(logits, label) for weight in (0.0, 0.7))
    assert (added - plain).item() == pytest.approx(0.7 * expected, rel=1e-5)
    label[:, 0] = -1
    assert torch.isfinite(CoSupervisionLoss(cross_entropy_weight=1.0)(logits, label))


def test_batch_dice_pools_the_batch() -> None:
    """Image 1 (8 of 16 true) found exactly, image 2 (4 of 16 true) missed.

    Pooled: 2*8/(8+12) = 0.8; per image: mean of 1 and 0.
    """
    left, _, column = halves()
    label = torch.cat([torch.cat([left, column]), torch.zeros(2, 1, 4, 4)], dim=1)
    logits = torch.cat([sure(left), sure(0 * column)])
    assert CoSupervisionLoss()(logits, label).item() == pytest.approx(0.2, abs=1e-6)
    assert CoSupervisionLoss(batch_dice=False)(logits, label).item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("logit", [-SURE, -120.0, 0.0, SURE])
def test_empty_masks(batch_dice: bool, logit: float) -> None:
    """Nothing to find: every Dice is 0 whatever is predicted, so the loss is 1 + 2*0.8 + 3*0.4,
    flat."""
    logits = torch.full((2, 6, 8, 8), logit, requires_grad=True)
    loss = CoSupervisionLoss(batch_dice=batch_dice)(logits, torch.zeros(2, 2, 8, 8))
    loss.backward()
    assert loss.item() == pytest.approx(3.8, abs=1e-6)
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_empty_edge_with_a_mask_is_finite() -> None:
    logits, label = batch()
    label[:, 1] = 0
    logits.requires_grad_()
    loss = CoSupervisionLoss()(logits, label)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert not logits.grad[:, 1:3].any()
    assert logits.grad[:, [0, 3, 4, 5]].flatten(2).any(dim=2).all()


def test_denominator_is_clamped_at_1e_5() -> None:
    """Where p = g = 1e-6 the slope is -2g/1e-5 * p(1-p); added, not clamped,
    it would be 0.76 of that."""
    logits = torch.full((1, 1, 1, 1), float(np.log(1e-6)), requires_grad=True)
    CoSupervisionLoss()(logits, torch.full((1, 2, 1, 1), 1e-6)).backward()
    assert logits.grad.item() == pytest.approx(-0.2e-6, rel=1e-3)


def test_nothing_is_added_where_there_is_something() -> None:
    """A single pixel found exactly costs 0; with 1e-5 added below it would cost 5e-6."""
    label = torch.zeros(1, 2, 4, 4)
    label[0, 0, 1, 2] = 1
    assert CoSupervisionLoss()(sure(label[:, :1]), label).item() == pytest.approx(0.0, abs=2e-7)


# ------------------------------------------------------------------------------------ Eq. 1-6,
# float64


def dice64(logit: np.ndarray, target: np.ndarray) -> float:
    p = 1 / (1 + np.exp(-logit.astype(np.float64)))
    g = target.astype(np.float64)
    return 2 * (p * g).sum() / max(p.sum() + g.sum(), 1e-5)


def dices(logits: torch.Tensor, label: torch.Tensor, n_edge: int) -> tuple[float, list[float], list[float]]:
    z, (mask, edge) = logits.numpy(), label.numpy().transpose(1, 0, 2, 3)
    main = dice64(z[:, 0], mask)
    edges = [dice64(z[:, k], edge) for k in range(1, 1 + n_edge)]
    masks = [dice64(z[:, k], mask) for k in range(1 + n_edge, z.shape[1])]
    return main, edges, masks


def equations_1_to_6(logits: torch.Tensor, label: torch.Tensor, zeta: Sequence[float], omega: Sequence[float]) -> float:
    main, edges, masks = dices(logits, label, len(zeta))
    l_edge = 1 - sum(z * d for z, d in zip(zeta, edges, strict=True))
    l_semantic = 1 - sum(w * d for w, d in zip(omega, masks, strict=True))
    return THETA * l_edge + BETA * l_semantic + (1 - main)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_edge", [1, 2, 3, 4])
def test_literal_form_is_equations_1_to_6(n_edge: int, seed: int) -> None:
    logits, label = batch(seed)
    loss = CoSupervisionLoss(n_edge, 5 - n_edge, loss_form="paper_literal")(logits, label)
    expected = equations_1_to_6(logits, label, [1.0] * n_edge, [1.0] * (5 - n_edge))
    assert loss.item() == pytest.approx(expected, abs=2e-6)


def test_literal_form_with_head_weights() -> None:
    zeta, omega = [0.5, 2.0], [1.5, 0.25, 3.0]
    logits, label = batch()
    loss = CoSupervisionLoss(edge_head_weights=zeta, mask_head_weights=omega, loss_form="paper_literal")
    assert loss(logits, label).item() == pytest.approx(equations_1_to_6(logits, label, zeta, omega), abs=2e-6)


@pytest.mark.parametrize("n_edge", [0, 1, 2, 3, 4, 5])
def test_sum_form(n_edge: int) -> None:
    logits, label = batch()
    main, edges, masks = dices(logits, label, n_edge)
    expected = 1 - main + THETA * sum(1 - d for d in edges) + BETA * sum(1 - d for d in masks)
    assert CoSupervisionLoss(n_edge, 5 - n_edge)(logits, label).item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("n_edge", [0, 2, 5])
def test_mean_form(n_edge: int) -> None:
    logits, label = batch()
    main, edges, masks = dices(logits, label, n_edge)
    expected = 1 - main
    expected += THETA * float(np.mean([1 - d for d in edges])) if edges else 0
    expected += BETA * float(np.mean([1 - d for d in masks])) if masks else 0
    loss = CoSupervisionLoss(n_edge, 5 - n_edge, loss_form="mean")(logits, label)
    assert loss.item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("n_edge", [1, 2, 3, 4])
def test_sum_and_literal_forms_differ_by_a_constant(n_edge: int) -> None:
    constant = (n_edge - 1) * THETA + (4 - n_edge) * BETA
    values, gradients = [], []
    for form in ("sum", "paper_literal"):
        logits, label = batch()
        logits.requires_grad_()
        loss = CoSupervisionLoss(n_edge, 5 - n_edge, loss_form=form)(logits, label)
        loss.backward()
        values.append(loss.item())
        gradients.append(logits.grad)
    assert values[0] - values[1] == pytest.approx(constant, abs=2e-6)
    assert gradients[0].abs().max() > 1e-4
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-9)


def test_gradient_by_hand() -> None:
    """d(1 - D)/dz = -(2g/S - 2I/S^2) p(1-p), I = sum pg, S = sum p + sum g, in float64 numpy."""
    zeta, omega = [0.5, 2.0], [1.5, 0.25, 3.0]
    logits, label = batch()
    logits.requires_grad_()
    CoSupervisionLoss(edge_head_weights=zeta, mask_head_weights=omega)(logits, label).backward()
    weights = [1.0, *(THETA * z for z in zeta), *(BETA * w for w in omega)]
    for k, weight in enumerate(weights):
        p = 1 / (1 + np.exp(-logits[:, k].detach().numpy().astype(np.float64)))
        g = label[:, 1 if k in (1, 2) else 0].numpy().astype(np.float64)
        total, both = p.sum() + g.sum(), (p * g).sum()
        expected = -weight * (2 * g / total - 2 * both / total**2) * p * (1 - p)
        np.testing.assert_allclose(logits.grad[:, k].numpy(), expected, rtol=2e-4, atol=1e-8)


@pytest.mark.parametrize("batch_dice", [True, False])
def test_agrees_with_monai(batch_dice: bool) -> None:
    logits, label = batch(size=32)
    reference = DiceLoss(sigmoid=True, batch=batch_dice, squared_pred=False, smooth_nr=0.0, smooth_dr=1e-5)
    terms = [reference(logits[:, k : k + 1], label[:, t : t + 1]) for k, t in enumerate((0, 1, 1, 0, 0, 0))]
    expected = terms[0] + THETA * (terms[1] + terms[2]) + BETA * (terms[3] + terms[4] + terms[5])
    loss = CoSupervisionLoss(batch_dice=batch_dice)(logits, label)
    torch.testing.assert_close(loss, expected, rtol=0, atol=3e-6)


# ------------------------------------------------------------------------------- weights and
# channels


def test_each_weight_moves_its_own_term() -> None:
    logits, label = batch()
    _, edges, masks = dices(logits, label, 2)
    base = CoSupervisionLoss()(logits, label).item()

    def change(**arguments: Any) -> float:
        return CoSupervisionLoss(**arguments)(logits, label).item() - base

    assert change(edge_weight=1.8) == pytest.approx(sum(1 - d for d in edges), abs=3e-6)
    assert change(mask_weight=1.4) == pytest.approx(sum(1 - d for d in masks), abs=3e-6)
    assert change(edge_head_weights=[1, 2]) == pytest.approx(THETA * (1 - edges[1]), abs=3e-6)
    assert change(edge_head_weights=[2, 1]) == pytest.approx(THETA * (1 - edges[0]), abs=3e-6)
    for k in range(3):
        omega = [2.0 if i == k else 1.0 for i in range(3)]
        assert change(mask_head_weights=omega) == pytest.approx(BETA * (1 - masks[k]), abs=3e-6)


def test_defaults_are_the_papers() -> None:
    logits, label = batch()
    spelled_out = CoSupervisionLoss(2, 3, 0.8, 0.4, [1, 1], [1, 1, 1], "sum", True)
    assert torch.equal(CoSupervisionLoss()(logits, label), spelled_out(logits, label))


def test_zero_weights_leave_the_fusion_term() -> None:
    logits, label = batch()
    alone = CoSupervisionLoss()(logits[:, :1], label)
    torch.testing.assert_close(CoSupervisionLoss(edge_weight=0, mask_weight=0)(logits, label), alone)


def test_order_of_heads_and_of_label_channels_matters() -> None:
    logits, label = batch()
    loss = CoSupervisionLoss()
    value = loss(logits, label)
    assert (loss(logits[:, [0, 3, 2, 1, 4, 5]], label) - value).abs() > 1e-3
    assert (loss(logits[:, [3, 1, 2, 0, 4, 5]], label) - value).abs() > 1e-3
    assert (loss(logits, label.flip(1)) - value).abs() > 1e-3
    torch.testing.assert_close(loss(logits[:, [0, 2, 1, 5, 3, 4]], label), value)


@pytest.mark.parametrize("channels", [2, 3, 5, 7])
def test_wrong_number_of_logit_channels(channels: int) -> None:
    with pytest.raises(ValueError, match=rf"\b{channels}\b"):
        CoSupervisionLoss()(torch.zeros(2, channels, 8, 8), torch.zeros(2, 2, 8, 8))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("logit_channels", [1, 6])
def test_wrong_number_of_label_channels(channels: int, logit_channels: int) -> None:
    with pytest.raises(ValueError, match=rf"\b{channels}\b"):
        CoSupervisionLoss()(torch.zeros(2, logit_channels, 8, 8), torch.zeros(2, channels, 8, 8))


def test_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="literal"):
        CoSupervisionLoss(loss_form="literal")


@pytest.mark.parametrize("weights", [{"edge_head_weights": [1.0]}, {"mask_head_weights": [1, 1, 1, 1]}])
def test_head_weights_that_do_not_fit_are_refused(weights: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match=next(iter(weights))):
        CoSupervisionLoss(**weights)


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (2, 2, 1, 8), (2, 2, 4, 4)])
@pytest.mark.parametrize("channels", [1, 6])
def test_label_of_another_size_is_not_broadcast(shape: tuple[int, ...], channels: int) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        CoSupervisionLoss()(torch.zeros(2, channels, 8, 8), torch.ones(shape))


# ------------------------------------------------------------------------------------- low
# precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_low_precision_logits_are_summed_in_float32(dtype: torch.dtype, autocast: bool) -> None:
    logits, label = batch(size=64)
    low = logits.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = CoSupervisionLoss()(low, label)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(CoSupervisionLoss()(low.float(), label).item(), abs=1e-7)


def test_half_precision_sums_do_not_overflow() -> None:
    """2 x 256 x 256 sure pixels are 131,072: more than float16 can hold."""
    logits = torch.full((2, 1, 256, 256), 12.0, dtype=torch.float16)
    loss = CoSupervisionLoss()(logits, torch.ones(2, 2, 256, 256))
    assert loss.item() == pytest.approx(0.0, abs=1e-5)


def test_low_precision_gradient_is_finite_and_reaches_every_channel() -> None:
    logits, label = batch(size=64)
    low = logits.bfloat16().requires_grad_()
    CoSupervisionLoss()(low, label).backward()
    assert low.grad.isfinite().all()
    assert low.grad.flatten(2).any(dim=2).all()


def test_unknown_pixels_are_left_out() -> None:
    logits = torch.randn(2, 6, 8, 8, requires_grad=True)
    label = (torch.rand(2, 2, 8, 8) > 0.5).float()
    label[:, 0, :3] = -1.0
    loss = CoSupervisionLoss()(logits, label)
    cut = CoSupervisionLoss()(logits[:, :, 3:], label[:, :, 3:])
    assert loss.item() == pytest.approx(cut.item(), rel=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[:, :, :3].any()
    assert logits.grad[:, :, 3:].abs().min() > 0
