"""The box that a network looks at, in mm around lungs whose place is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scripts.anatomy.field_of_view import MARGIN_MM, find_box, whole
from scripts.anatomy.lungs import Lungs, segment_lungs
from scripts.anatomy.tissue import segment_tissue

SPACING = (2.2, 2.2, 4.5)


def bounds(mask: np.ndarray, axis: int) -> tuple[int, int]:
    found = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    return int(found[0]), int(found[-1]) + 1


def test_the_box_lies_a_centimetre_around_both_lungs(phantom, phantom_lungs):
    box = find_box(segment_tissue(phantom.image, SPACING), phantom_lungs)
    for axis, (side, spacing) in enumerate(zip(box, SPACING, strict=True)):
        low, high = bounds(phantom.lungs > 0, axis)
        length = phantom.image.shape[axis]
        for found, wanted in ((side.start, low - MARGIN_MM / spacing), (side.stop, high + MARGIN_MM / spacing)):
            assert found == pytest.approx(np.clip(wanted, 0, length), abs=3)  # a block, the margin's last voxel
    assert phantom.infection[box].sum() == phantom.infection.sum() > 0
    assert np.prod([side.stop - side.start for side in box[:2]]) < 0.65 * np.prod(phantom.image.shape[:2])


def test_a_given_mask_at_full_resolution_is_taken_to_the_voxel(phantom):
    mask = np.zeros((40, 50, 30), np.uint8)
    mask[12:16, 20:40, 8:25], mask[20:30, 20:40, 8:25] = 1, 2
    lungs = Lungs(mask, (1, 1, 1), (2.0, 1.5, 4.0), (40, 50, 30))
    box = find_box(segment_tissue(phantom.image, SPACING), lungs)
    assert box == (slice(7, 35), slice(13, 47), slice(5, 28))  # 10 mm are 5, 6.67 and 2.5 voxels, rounded up


def test_the_last_digits_of_a_voxel_size_do_not_move_the_box(phantom):
    mask = np.zeros((40, 50, 30), np.uint8)
    mask[12:16, 20:40, 8:25], mask[20:30, 20:40, 8:25] = 1, 2
    seen = segment_tissue(phantom.image, SPACING)
    for factor in (1, 1 - 1e-7, 1 + 1e-7):
        lungs = Lungs(mask, (1, 1, 1), (2.0 * factor, 2.5 * factor, 5.0 * factor), (40, 50, 30))
        assert find_box(seen, lungs) == (slice(7, 35), slice(16, 44), slice(6, 27))  # 5, 4 and 2 voxels


def test_without_plausible_lungs_it_is_the_body_and_without_a_body_the_scan(phantom, phantom_lungs):
    seen = segment_tissue(phantom.image, SPACING)
    doubtful = replace(phantom_lungs, doubts=["There is no lung."])
    box = find_box(seen, doubtful)
    lungs = find_box(seen, phantom_lungs)
    assert all(outer.start <= inner.start and inner.stop <= outer.stop for outer, inner in zip(box, lungs, strict=True))
    assert box[1].stop - box[1].start < phantom.image.shape[1]  # the air around the patient is left out
    nothing = np.full((20, 24, 6), -1000, np.int16)
    air = segment_tissue(nothing, SPACING)
    assert find_box(air, segment_lungs(air)) == whole((20, 24, 6))
