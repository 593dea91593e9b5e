from __future__ import annotations

import math

import pytest
import torch

from scripts.metrics.counts import (
    Counts,
    check_probabilities,
    counts_at,
    counts_over_thresholds,
    min_max_stretch,
    prepare_maps,
    working_dtype,
)


def test_counts_by_hand():
    prob = torch.tensor([[0.9, 0.5, 0.1, 0.0], [0.7, 0.4999, 0.6, 0.0]])[None, None]
    target = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])[None, None]
    counts = counts_at(*prepare_maps(prob, target))
    assert [int(n) for n in counts] == [3, 4, 4, 8]
    assert counts.dice().item() == 6 / 8
    assert counts.sensitivity().item() == 3 / 4
    assert counts.precision().item() == 3 / 4
    assert counts.specificity().item() == 3 / 4
    assert int(counts_at(*prepare_maps(prob, target), threshold=0.65).predicted) == 2


@pytest.mark.parametrize(
    ("counts", "dice", "sensitivity", "precision", "specificity"),
    [
        ((0, 0, 0, 16), 1, math.nan, math.nan, 1),
        ((0, 4, 0, 16), 0, math.nan, 0, 12 / 16),
        ((0, 0, 4, 16), 0, 0, math.nan, 1),
        ((16, 16, 16, 16), 1, 1, 1, math.nan),
    ],
)
def test_empty_denominators(counts, dice, sensitivity, precision, specificity):
    counts = Counts(*torch.tensor(counts))
    found = [counts.dice(), counts.sensitivity(), counts.precision(), counts.specificity()]
    expected = torch.tensor([dice, sensitivity, precision, specificity], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(found), expected, equal_nan=True)


def test_histogram_equals_thresholding_one_by_one(random_maps):
    prob, target = random_maps()
    prob[0] = torch.rand(prob[0].shape, generator=torch.Generator().manual_seed(0))  # between the steps too
    curve = counts_over_thresholds(*prepare_maps(prob, target))
    for k in range(256):
        single = counts_at(*prepare_maps(prob, target), threshold=k / 255)
        for at_k, one in zip(curve, single, strict=True):
            assert torch.equal(at_k[:, k], one), k


def test_every_8_bit_step_reaches_its_own_threshold():
    prob = (torch.arange(256) / 255).view(1, 1, 16, 16)
    curve = counts_over_thresholds(*prepare_maps(prob, torch.ones_like(prob)))
    assert torch.equal(curve.tp[0], 256 - torch.arange(256))


def test_stretch_reaches_0_and_1_per_map_and_leaves_constants():
    prob = torch.stack([torch.linspace(0.2, 0.6, 16), torch.full((16,), 0.3), torch.zeros(16)])
    stretched = min_max_stretch(prob.view(3, 1, 4, 4)).flatten(1)
    torch.testing.assert_close(stretched[0], torch.linspace(0, 1, 16))
    assert torch.equal(stretched[1:], prob[1:])
    assert stretched[0].min() == 0
    assert stretched[0].max() == 1


@pytest.mark.parametrize(
    ("prob_shape", "target_shape"),
    [((1, 2, 4, 4), (1, 2, 4, 4)), ((1, 4, 4), (1, 4, 4)), ((2, 1, 4, 4), (1, 1, 4, 4))],
)
def test_shapes_are_checked(prob_shape, target_shape):
    with pytest.raises(ValueError, match=r"expected: both \(B, 1, H, W\)"):
        prepare_maps(torch.zeros(prob_shape), torch.zeros(target_shape))


def test_unknown_rules_name_the_known():
    with pytest.raises(ValueError, match="'minmax'; expected: plain, infnet_toolbox"):
        prepare_maps(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), "minmax")


@pytest.mark.parametrize("bad", [-0.1, 1.001, math.nan, math.inf])
def test_logits_and_nan_are_no_probabilities(bad):
    with pytest.raises(ValueError, match="after the sigmoid"):
        check_probabilities(torch.tensor([0.5, bad, 0.2]))


def test_probabilities_include_both_ends():
    check_probabilities(torch.tensor([0.0, 1.0]))


def test_mps_has_no_float64():
    assert working_dtype(torch.device("mps")) == torch.float32
    assert working_dtype(torch.device("cuda", 1)) == torch.float64
