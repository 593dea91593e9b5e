"""Counts, threshold, slice rule and reliability of a calibration by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scripts.inference.operating_point import (
    LEVELS,
    CaseCounts,
    choose_slice_fraction,
    choose_threshold,
    choose_views_limit,
    count_levels,
    dice_by_level,
    dice_of_kinds,
)
from scripts.inference.reliability import calibrated_levels, calibration_error, reliability


def case(probability: np.ndarray, label: np.ndarray, picture: bool = False, ood_score: float = 1.0) -> CaseCounts:
    return CaseCounts("a", picture, *count_levels(probability.astype(np.float32), label), ood_score)


def test_levels_of_each_slice() -> None:
    probability = np.zeros((2, 2, 2), np.float32)
    probability[0, 0] = 0.5, 1.0
    label = np.zeros((2, 2, 2), np.uint8)
    label[0, 0, 1] = 1
    voxels, lesion = count_levels(probability, label)
    assert voxels.shape == lesion.shape == (2, LEVELS)
    assert (voxels[0, 0], voxels[0, 128], voxels[1, 0], voxels[1, 255]) == (3, 1, 3, 1)
    assert voxels.sum() == 8
    assert (lesion.sum(), lesion[1, 255]) == (1, 1)


def test_dice_at_every_threshold_is_that_of_the_mask() -> None:
    rng = np.random.default_rng(0)
    probability, label = rng.random((9, 8, 3)).astype(np.float32), rng.random((9, 8, 3)) > 0.7
    found = dice_by_level(case(probability, label))
    for level in (0, 1, 100, 200, 255):
        mask = probability >= level / LEVELS
        assert found[level] == pytest.approx(2 * (mask & label).sum() / (mask.sum() + label.sum()))


def test_nothing_found_where_nothing_is_has_a_dice_of_one() -> None:
    found = dice_by_level(case(np.zeros((4, 4, 1)), np.zeros((4, 4, 1))))
    assert found[0] == 0  # everything marked
    assert (found[1:] == 1).all()


def test_a_tenth_of_the_good_masks_agrees_less_than_the_limit() -> None:
    """Ten good masks agree for 50 to 95 %, one low mask for 20 %, one marks nothing."""
    label = np.zeros((10, 10, 1))
    label[:5] = 1
    agreements = [*range(50, 100, 5), 20, np.nan]
    maps = [label] * 10 + [1 - label, label]
    cases = [
        replace(case(one, label), views_agree=np.full(LEVELS, float(agree)))
        for one, agree in zip(maps, agreements, strict=True)
    ]
    found = choose_views_limit(cases, 0.5)
    assert found is not None
    assert found["least_percent"] == pytest.approx(54.5)  # the tenth percentile of 50, 55, ... 95
    assert (found["good"], found["good_flagged"], found["low"], found["low_flagged"]) == (10, 1, 1, 1)
    assert found["rank_correlation"] > 0
    assert choose_views_limit([case(label, label)], 0.5) is None  # one view


def test_the_threshold_is_that_of_the_highest_mean_and_kinds_count_alike() -> None:
    label = np.zeros((10, 10, 1))
    label[:5] = 1
    sure = np.where(label > 0, 0.3, 0.2)  # best between 0.2 and 0.3
    other = np.where(label > 0, 0.7, 0.6)  # best between 0.6 and 0.7
    volume, pictures = case(sure, label), [case(other, label, picture=True)] * 9
    assert 0.2 < choose_threshold([volume]) <= 0.3
    assert 0.6 < choose_threshold(pictures) <= 0.7
    assert 0.2 < choose_threshold([volume, *pictures]) <= 0.3  # 1 and 2/3 there; 0 and 1 between 0.6 and 0.7
    found = dice_of_kinds([volume, case(other, label), *pictures])
    assert {kind: number for kind, (_, number) in found.items()} == {"volumes": 2, "pictures": 9}
    np.testing.assert_allclose(found["volumes"][0], (dice_by_level(volume) + dice_by_level(pictures[0])) / 2)
    np.testing.assert_allclose(found["pictures"][0], dice_by_level(pictures[0]))


def test_where_dice_is_flat_the_threshold_stays_at_one_half() -> None:
    probability, label = np.full((10, 10, 1), 0.15), np.zeros((10, 10, 1))
    label[:5] = 1
    probability[:5] = 0.85
    assert choose_threshold([case(probability, label)]) == 0.5
    curve, _ = dice_of_kinds([case(probability, label)])["volumes"]
    assert curve[40] == curve[128] == curve[215] == 1
    probability[0, 0] = 0.4  # one lesion voxel of 50: more than a flat optimum forgives
    assert 0.39 < choose_threshold([case(probability, label)]) <= 0.4


def test_the_slice_rule_parts_slices_with_lesion_from_specks() -> None:
    probability, label = np.zeros((10, 10, 6)), np.zeros((10, 10, 6))
    label[:5, :4, :3] = 1
    probability[:5, :4, :2] = 0.9  # 20 % of two slices with lesion; one is missed
    probability[0, :2, 3] = 0.9  # a speck of 2 % on a clean one
    found = choose_slice_fraction([case(probability, label)], 0.5)
    assert found == {"least_share": 0.2, "sensitivity": pytest.approx(2 / 3), "specificity": 1}
    assert choose_slice_fraction([case(probability[..., :3], label[..., :3])], 0.5) is None  # no clean slice
    assert choose_slice_fraction([case(probability, label, picture=True)], 0.5) is None
    assert choose_slice_fraction([case(probability * 0.1, label)], 0.5) is None  # nothing is marked


def test_reliability_by_hand() -> None:
    probability, label = np.full((10, 10, 1), 0.75 + 0.5 / LEVELS), np.zeros((10, 10, 1))
    label[:6] = 1
    curve = reliability([case(probability, label)])
    assert curve == [{"probability": pytest.approx(0.75 + 0.5 / LEVELS), "observed": 0.6, "voxels": 100}]
    assert calibration_error(curve) == pytest.approx(0.15 + 0.5 / LEVELS)
    background = {"probability": 0.01, "observed": 0.5, "voxels": 10**9}  # nearly all voxels of a scan lie here
    assert calibration_error([background, *curve]) == pytest.approx(calibration_error(curve))


def test_calibrated_levels_are_observed_fractions_that_rise() -> None:
    """The two middle bins fall from 0.8 to 0.4: both become their mean by voxels, 0.5."""
    rows = ((0.01, 0.0, 10**6), (0.25, 0.8, 10), (0.5, 0.4, 30), (0.9, 0.7, 5))
    curve = [{"probability": mean, "observed": seen, "voxels": number} for mean, seen, number in rows]
    table = calibrated_levels(curve, 200)
    assert table.shape == (201,)
    assert table[[0, 2, 50, 100, 180, 200]].tolist() == [0, 0, 100, 100, 140, 140]
    assert table[26] == 50  # half-way from 0.01 to 0.25
    assert np.all(np.diff(table.astype(int)) >= 0)


def test_calibrated_probabilities_of_other_voxels_are_nearly_right() -> None:
    """Of a network that is far too sure; the curve comes of other cases."""
    rng = np.random.default_rng(3)
    truth = rng.random((2, 60, 60, 20))
    sure = np.where(truth < 0.5, 0.2 * truth, 1 - 0.2 * (1 - truth)).astype(np.float32)
    label = (rng.random(truth.shape) < truth).astype(np.uint8)
    table = calibrated_levels(reliability([case(sure[0], label[0])]), 255)
    mended = (table[np.rint(255 * sure[1]).astype(int)] / 255).astype(np.float32)
    before, after = (calibration_error(reliability([case(one, label[1])])) for one in (sure[1], mended))
    assert before > 0.15
    assert after < 0.03
