"""What is said about a mask."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.anatomy.plausibility import find_cuts, find_doubts

SPACING = (2.0, 2.0, 2.0)


def mask() -> np.ndarray:
    lungs = np.zeros((150, 110, 130), np.uint8)
    lungs[10:65, 10:90, 10:120], lungs[85:140, 10:90, 10:120] = 1, 2
    return lungs


def test_whole_lungs_are_plausible():
    assert find_cuts(mask(), SPACING) == []
    assert find_doubts(130, 2900, 2500, cut=False) == []


@pytest.mark.parametrize(
    ("right", "left", "said"),
    [(600, 300, "0.9 l"), (6500, 5000, "11.5 l"), (3000, 0, "No left"), (0, 3000, "No right"), (3000, 900, "77%"),
     (1000, 2500, "29%")],
)  # fmt: skip
def test_volumes(right, left, said):
    (doubt,) = find_doubts(130, right, left, cut=False)
    assert said in doubt


def test_part_of_a_lung_may_be_small():
    cut = mask()[:, :, 40:80]
    (found,) = find_cuts(cut, SPACING)
    assert "the lowest and the highest slice" in found
    assert find_doubts(40, 400, 350, cut=True) == []


def test_the_tip_of_a_recess_in_the_first_slice_is_no_cut():
    lungs = mask()
    lungs[20:30, 60:90, :10] = 1  # 3 % of the largest area
    assert find_cuts(lungs, SPACING) == []


def test_sides_of_the_field_of_view():
    (found,) = find_cuts(mask()[10:, :90], SPACING)
    assert "at the patient's right, back" in found


def test_no_lung():
    assert find_cuts(np.zeros((5, 5, 9), np.uint8), SPACING) == []
    assert find_doubts(9, 0, 0, cut=False) == ["No lung was found in the scan."]
