"""Lobe masks that users bring: codes of either program, and lobes that lie as in no body."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.anatomy.lobes import FIRST_CLASS, LOBES, lungs_of, read_lobes

PLACES = {  # x, y, z of LPS: left is far along x, upper far along z
    "left_upper": (slice(12, 18), slice(2, 8), slice(5, 10)),
    "left_lower": (slice(12, 18), slice(2, 8), slice(0, 5)),
    "right_upper": (slice(2, 8), slice(2, 8), slice(7, 10)),
    "right_middle": (slice(2, 8), slice(2, 5), slice(4, 7)),
    "right_lower": (slice(2, 8), slice(5, 8), slice(0, 7)),
}


def draw(order=tuple(LOBES), first=1, dtype=np.uint8):
    """A mask with consecutive values for lobes in an order."""
    mask = np.zeros((20, 10, 10), dtype)
    for value, name in enumerate(order, first):
        mask[PLACES[name]] = value
    return mask


def test_both_programs_have_one_order():
    expected = draw()
    np.testing.assert_array_equal(read_lobes(expected), expected)
    total = draw(first=FIRST_CLASS, dtype=np.int16)
    total[0], total[19] = 51, 5  # other organs, one with the number of a lobe in the other order
    np.testing.assert_array_equal(read_lobes(total), expected)
    assert read_lobes(total).dtype == np.uint8


def test_the_lungs_are_right_one_and_left_two():
    lungs = lungs_of(draw())
    assert {name: int(lungs[place].max()) for name, place in PLACES.items()} == {
        name: 2 if name.startswith("left") else 1 for name in LOBES
    }
    assert lungs[10, 0, 0] == 0


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (("right_upper", "right_middle", "right_lower", "left_upper", "left_lower"), "left lobes lie at the right"),
        (("left_lower", "left_upper", "right_upper", "right_middle", "right_lower"), "left upper lobe lies below"),
        (("left_upper", "left_lower", "right_lower", "right_middle", "right_upper"), "below the right lower lobe"),
        (("left_upper", "left_lower", "right_middle", "right_upper", "right_lower"), "below the right middle lobe"),
    ],
)
def test_another_order_is_found(order, said):
    for first in (1, FIRST_CLASS):
        with pytest.raises(ValueError, match=rf"{said}.*; expected: 1 left upper, 2 left lower"):
            read_lobes(draw(order, first))


def test_lobes_that_are_missing_are_no_error():
    mask = draw()
    mask[mask == 4] = 0
    assert set(np.unique(read_lobes(mask))) == {0, 1, 2, 3, 5}


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.zeros((4, 4, 4)), "is empty"),
        (np.full((4, 4, 4), 7), "holds the values 7; expected"),
        (np.zeros((4, 4)), "has shape"),
    ],
)
def test_other_masks_are_refused(mask, said):
    with pytest.raises(ValueError, match=said):
        read_lobes(mask)
