"""Marks outside of the body and the lungs on a chest drawn by hand: what goes, what stays, how
much is counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scripts.anatomy.lungs import Lungs, segment_lungs
from scripts.anatomy.outside import PART_OF_LUNGS, Removed, Zones, find_zones, remove_outside, why_kept
from scripts.anatomy.tissue import Tissues, segment_tissue

SIZE = 2.25  # mm, as large as a block
SHAPE = (140, 110, 90)
X, Y, Z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]


def ball(x: int, y: int, z: int, *radii: float) -> np.ndarray:
    """An ellipsoid on the grid."""
    return sum(((axis - at) / r) ** 2 for axis, at, r in zip((X, Y, Z), (x, y, z), radii, strict=True)) <= 1


BODY = np.broadcast_to(((X - 70) / 62) ** 2 + ((Y - 52) / 44) ** 2 <= 1, SHAPE)
AWAY = np.broadcast_to(((X - 70) / 64) ** 2 + ((Y - 52) / 46) ** 2 > 1, SHAPE)  # from the body's hull of pixels too
RIGHT, LEFT = ball(42, 50, 50, 22, 30, 34), ball(98, 50, 50, 22, 30, 34)
STOMACH = ball(92, 42, 8, 10, 9, 5)
LOBE = RIGHT & (Z < 32)  # consolidated as a whole, down to the diaphragm


@pytest.fixture(scope="module")
def chest() -> tuple[Tissues, Lungs]:
    """The chest with its consolidated lobe, and the lungs that are found in it."""
    hu = np.where(BODY, 40, -1000).astype(np.int16)
    hu[(RIGHT & ~LOBE) | LEFT] = -850
    hu[STOMACH] = -1000
    seen = segment_tissue(hu, (SIZE, SIZE, SIZE))
    assert seen.scan.steps == (1, 1, 1)
    lungs = segment_lungs(seen)
    assert lungs.plausible
    assert not lungs.partial
    assert not lungs.mask[LOBE & (Z < 26)].any()
    return seen, lungs


MARKS = {
    "lung": (ball(98, 50, 60, 4, 4, 4), True),
    "pleura": (ball(120, 50, 50, 3, 3, 3), True),  # half of it beyond the lung
    "lobe": (LOBE, True),
    "stomach": (STOMACH, False),
    "spine": (ball(70, 85, 50, 4, 4, 4), False),
}


@pytest.mark.parametrize("name", MARKS)
def test_lesions_stay_that_touch_the_lungs(name: str, chest: tuple[Tissues, Lungs]) -> None:
    mark, stays = MARKS[name]
    mask = mark.astype(np.uint8)
    removed = remove_outside(mask, find_zones(*chest))
    np.testing.assert_array_equal(mask, mark if stays else 0)
    assert removed == Removed(0, 0 if stays else mark.sum())


def test_what_lies_outside_of_the_body_goes_alone(chest: tuple[Tissues, Lungs]) -> None:
    """A mark from the lung through the chest wall loses what the body does not hold."""
    mark = (BODY | AWAY) & (X > 100) & (abs(Y - 52) < 3) & (abs(Z - 50) < 3)
    mask = mark.astype(np.uint8)
    removed = remove_outside(mask, find_zones(*chest))
    np.testing.assert_array_equal(mask, mark & BODY)
    assert removed == Removed((mark & AWAY).sum(), 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"doubts": ["No left lung was found."]}, "not plausible: No left lung"), ({"cuts": ["cut"]}, PART_OF_LUNGS)],
)
def test_lungs_that_cannot_tell_remove_nothing(
    change: dict[str, list[str]], reason: str, chest: tuple[Tissues, Lungs]
) -> None:
    seen, lungs = chest[0], replace(chest[1], **change)
    marks = [mark for mark, _ in MARKS.values()]
    mask = np.any([*marks, AWAY], axis=0).astype(np.uint8)
    removed = remove_outside(mask, find_zones(seen, lungs), why_kept(lungs))
    np.testing.assert_array_equal(mask, np.any(marks, axis=0))
    assert removed.outside_lungs == 0
    assert removed.outside_body == AWAY.sum()
    assert reason in str(removed.reason)


def test_a_scan_without_body_keeps_all() -> None:
    seen = segment_tissue(np.full((30, 30, 8), -1000, np.int16), (SIZE, SIZE, SIZE))
    mask = np.ones((30, 30, 8), np.uint8)
    assert remove_outside(mask, find_zones(seen, segment_lungs(seen))) == Removed(0, 0)
    assert mask.all()


def test_lung_that_lies_open_to_the_room_is_body() -> None:
    """A gap in the body that its convex hull closes."""
    codes = np.zeros((20, 20, 1), np.uint8)
    codes[2:18, 2:18] = 1
    codes[2:10, 8:12] = 0
    mask = np.ones((20, 20, 1), np.uint8)
    assert remove_outside(mask, Zones(codes, (1, 1, 1))).outside_body == 400 - 256
    assert mask[2:18, 2:18].all()


def test_blocks_of_several_voxels(chest: tuple[Tissues, Lungs]) -> None:
    """Whole blocks go, the last of which may be cut; voxels are counted, in any memory order."""
    codes = np.ones((4, 3, 2), np.uint8)
    codes[0] = 2
    codes[3, 2] = 0
    mask = np.zeros((11, 8, 3), np.uint8, order="F")
    mask[7, 1, :] = 1  # apart from the lungs, in block (2, 0)
    mask[0, 0, 0] = 1
    mask[10, 7, 2] = 1
    kept = mask.copy()
    assert remove_outside(mask, Zones(codes, (3, 3, 2))) == Removed(1, 3)
    kept[7, 1] = kept[10, 7] = 0
    np.testing.assert_array_equal(mask, kept)


def test_a_given_mask_is_brought_to_the_blocks(chest: tuple[Tissues, Lungs]) -> None:
    seen, lungs = chest
    finer = Lungs(lungs.mask.repeat(3, 0).repeat(3, 1)[:-1], (1, 1, 1), (0.75, 0.75, SIZE), (419, 330, 90))
    scan = replace(seen.scan, steps=(3, 3, 1))
    found = find_zones(replace(seen, scan=scan), finer)
    np.testing.assert_array_equal(found.codes, find_zones(seen, lungs).codes)


def test_thick_slices_touch() -> None:
    """A consolidated base lies a slice of 6 mm below the aerated lung."""
    mask = np.zeros((40, 40, 30), np.uint8)
    mask[5:35, 5:35, :10] = 1
    seen = segment_tissue(np.full(mask.shape, 40, np.int16), (2.0, 2.0, 6.0))
    codes = np.zeros(mask.shape, np.uint8)
    codes[5:18, 5:35, 10:29], codes[22:35, 5:35, 10:29] = 1, 2
    lungs = Lungs(codes, seen.scan.steps, (2.0, 2.0, 6.0), mask.shape)
    assert remove_outside(mask, find_zones(seen, lungs)) == Removed(0, 0)
