"""Lung masks that a user brings along."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.anatomy.lungs import Lungs

SPACING = (1.0, 2.0, 3.0)


def codes(right: int, left: int) -> np.ndarray:
    mask = np.zeros((120, 60, 40), np.int16)
    mask[10:50, 10:50, 5:35] = right
    mask[70:100, 10:50, 5:35] = left
    return mask


def test_right_and_left_are_taken_as_they_are():
    lungs = Lungs.from_mask(codes(1, 2), SPACING)
    assert lungs.notes == []
    assert lungs.right_ml == pytest.approx(40 * 40 * 30 * 6 / 1000)
    assert lungs.left_ml == pytest.approx(30 * 40 * 30 * 6 / 1000)
    for z in (0, 5, 39):
        np.testing.assert_array_equal(lungs.slab(z), codes(1, 2)[:, :, z])


def test_codes_of_the_other_convention_are_exchanged_and_named():
    lungs = Lungs.from_mask(codes(2, 1), SPACING)
    assert "exchanged" in lungs.notes[0]
    np.testing.assert_array_equal(lungs.slab(20), codes(1, 2)[:, :, 20])


@pytest.mark.parametrize("value", [1, 255, True, 3.0])
def test_one_value_is_parted(value):
    mask = (codes(1, 1) * np.array(value)).astype(np.array(value).dtype)
    lungs = Lungs.from_mask(mask, SPACING)
    assert "parted by the two components" in lungs.notes[0]
    np.testing.assert_array_equal(lungs.slab(20), codes(1, 2)[:, :, 20])


def test_lungs_that_touch_are_parted():
    mask = codes(1, 1)
    mask[50:70, 10:13, 10:30] = 1
    lungs = Lungs.from_mask(mask, SPACING)
    assert "touch" in lungs.notes[0]
    plane = lungs.slab(20)
    assert (plane[10:50, 10:50] == 1).all()
    assert (plane[70:100, 10:50] == 2).all()
    assert (plane > 0).sum() == (mask[:, :, 20] > 0).sum()


def test_one_lung_is_told_by_the_middle():
    lungs = Lungs.from_mask(codes(0, 1), SPACING)
    assert lungs.right_ml == 0
    assert "No right lung was found." in lungs.doubts


def test_lungs_thinner_than_the_samples_are_parted():
    """Blocks are 3 x 3 x 2 voxels; no first voxel of one is marked."""
    mask = np.zeros((120, 30, 20), np.uint8)
    mask[[31, 91], 13:25, 7] = 1
    lungs = Lungs.from_mask(mask, (0.7, 0.7, 1.0))
    np.testing.assert_array_equal(np.argwhere(lungs.mask == 1), [[31, y, 7] for y in range(13, 25)])
    np.testing.assert_array_equal(np.argwhere(lungs.mask == 2), [[91, y, 7] for y in range(13, 25)])
    assert "No right lung was found." not in lungs.doubts


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (np.zeros((9, 9, 9), np.uint8), "empty"),
        (np.arange(729).reshape(9, 9, 9) % 6, "1, 2, 3, 4, 5"),
        (np.ones((9, 9), np.uint8), r"\(9, 9\)"),
    ],
)
def test_other_masks_are_refused(mask, found):
    with pytest.raises(ValueError, match=found):
        Lungs.from_mask(mask, SPACING)
