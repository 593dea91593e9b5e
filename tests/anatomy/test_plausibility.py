"""What is said about a mask."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.anatomy.plausibility import find_problems

SPACING = (2.0, 2.0, 2.0)


def mask() -> np.ndarray:
    lungs = np.zeros((150, 110, 130), np.uint8)
    lungs[10:65, 10:90, 10:120], lungs[85:140, 10:90, 10:120] = 1, 2
    return lungs


def test_whole_lungs_are_plausible():
    assert find_problems(mask(), SPACING, 2900, 2500) == ([], False)


@pytest.mark.parametrize(
    ("right", "left", "said"),
    [(600, 300, "0.9 l"), (6500, 5000, "11.5 l"), (3000, 0, "No left"), (0, 3000, "No right"), (3000, 900, "77%"),
     (1000, 2500, "29%")],
)  # fmt: skip
def test_volumes(right, left, said):
    problems, partial = find_problems(mask(), SPACING, right, left)
    assert len(problems) == 1
    assert said in problems[0]
    assert not partial


def test_part_of_a_lung_may_be_small():
    cut = mask()[:, :, 40:80]
    problems, partial = find_problems(cut, SPACING, 400, 350)
    assert partial
    assert len(problems) == 1
    assert "the lowest and the highest slice" in problems[0]


def test_the_tip_of_a_recess_in_the_first_slice_is_no_cut():
    lungs = mask()
    lungs[20:30, 60:90, :10] = 1  # 3 % of the largest area
    assert find_problems(lungs, SPACING, 2900, 2500) == ([], False)


def test_sides_of_the_field_of_view():
    problems, partial = find_problems(mask()[10:, :90], SPACING, 2900, 2500)
    assert partial
    assert "at the patient's right, back" in problems[0]


def test_no_lung():
    assert find_problems(np.zeros((5, 5, 9), np.uint8), SPACING, 0, 0) == (["No lung was found in the scan."], False)
