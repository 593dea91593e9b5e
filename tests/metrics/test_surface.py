from __future__ import annotations

import math

import pytest
import torch

from scripts.metrics.surface import surface_measures


@pytest.fixture
def square():
    mask = torch.zeros(20, 20, 5, dtype=torch.bool)
    mask[5:10, 5:10, 1:4] = True
    return mask


def test_same_mask(square):
    assert surface_measures(square, square, (1, 1, 5)) == {"hd95_mm": 0, "surface_dice_1mm": 1}


@pytest.mark.parametrize(("axis", "spacing", "distance"), [(0, (0.7, 1, 5), 0.7), (1, (1, 2, 5), 2), (2, (1, 1, 8), 8)])
def test_one_voxel_along_each_axis_is_its_spacing(axis, spacing, distance):
    one = torch.zeros(9, 9, 5, dtype=torch.bool)
    one[4, 4, 2] = True
    found = surface_measures(one.roll(1, axis), one, spacing)
    assert found["hd95_mm"] == pytest.approx(distance)
    assert found["surface_dice_1mm"] == (1 if distance <= 1 else 0)


@pytest.mark.parametrize(("far", "distance"), [(1, 0), (3, 10)])
def test_95th_percentile_forgives_less_than_5_percent(far, distance):
    line = torch.zeros(30, 20, 1, dtype=torch.bool)
    line[:, 2] = True
    predicted = line.clone()
    predicted[5 : 5 + far, 12] = True  # of 31 or 33 pixels
    assert surface_measures(predicted, line, (1, 1, 1))["hd95_mm"] == pytest.approx(distance)


def test_empty_masks(square):
    empty = torch.zeros_like(square)
    for pair in ((square, empty), (empty, square)):
        missed = surface_measures(*pair, (1, 1, 1))
        assert math.isnan(missed["hd95_mm"])
        assert missed["surface_dice_1mm"] == 0
    assert all(math.isnan(value) for value in surface_measures(empty, empty, (1, 1, 1)).values())


def test_a_single_slice_has_an_outline_not_two_faces():
    """3-D, every pixel of a slice would be surface, and a hole in the middle of it an error."""
    full, holed = (torch.zeros(21, 21, 1, dtype=torch.bool) for _ in range(2))
    full[3:18, 3:18] = holed[3:18, 3:18] = True
    holed[10, 10] = False
    assert surface_measures(full[:, :, :1], full, (1, 1, 5))["surface_dice_1mm"] == 1
    assert surface_measures(holed, full, (1, 1, 5))["surface_dice_1mm"] == pytest.approx(2 * 56 / (56 + 60))
