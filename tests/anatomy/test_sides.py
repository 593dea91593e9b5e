"""Right and left where lungs are apart, touch or are one."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.anatomy.sides import LEFT, RIGHT, split_sides

SPACING = (2.0, 2.0, 2.0)


def two_boxes() -> np.ndarray:
    lungs = np.zeros((100, 60, 50), bool)
    lungs[10:45, 10:50, 5:45] = lungs[55:90, 10:50, 5:45] = True
    return lungs


def test_components_beside_each_other():
    sides, how = split_sides(two_boxes(), SPACING)
    assert how == "components"
    assert (sides[:45] == RIGHT).all()
    assert (sides[55:] == LEFT).all()


def test_lungs_that_touch_are_parted_at_the_bridge():
    lungs = two_boxes()
    lungs[45:55, 10:14, 20:40] = True  # 8 mm thick, in front
    sides, how = split_sides(lungs, SPACING)
    assert how == "erosion"
    assert (sides[:46][lungs[:46]] == RIGHT).all()
    assert (sides[54:][lungs[54:]] == LEFT).all()


def test_lungs_that_differ_in_size_are_not_parted_in_the_middle():
    lungs = np.zeros((100, 60, 50), bool)
    lungs[5:65, 10:50, 5:45] = lungs[66:95, 15:50, 15:35] = True
    lungs[65, 15:18, 20:30] = True
    sides, _ = split_sides(lungs, SPACING)
    assert (sides[:65][lungs[:65]] == RIGHT).all()
    assert (sides[67:][lungs[67:]] == LEFT).all()


def test_parts_above_each_other_are_one_lung():
    lungs = np.zeros((100, 60, 50), bool)
    lungs[10:40, 10:50, 2:20] = lungs[10:40, 10:50, 25:48] = True
    sides, how = split_sides(lungs, SPACING)
    assert how == "midline"
    assert (sides[lungs] == RIGHT).all()


@pytest.mark.parametrize(("middle", "side"), [(18, LEFT), (48, RIGHT)])
def test_one_lung_is_told_by_the_middle_of_the_body(middle, side):
    lungs = np.zeros((100, 60, 50), bool)
    lungs[15:52, 10:50, 5:45] = True
    sides, _ = split_sides(lungs, SPACING, middle)
    assert (sides[lungs] == side).all()


def test_lungs_that_no_erosion_parts_are_cut_where_they_are_thinnest():
    lungs = np.zeros((100, 60, 50), bool)
    lungs[5:95, 10:50, 5:45] = True
    lungs[55, 10:20] = False
    sides, how = split_sides(lungs, SPACING)
    assert how == "midline"
    assert (sides[54] == RIGHT).all()
    assert (sides[56] == LEFT).all()


def test_no_lung_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        split_sides(np.zeros((4, 4, 4), bool), SPACING)
