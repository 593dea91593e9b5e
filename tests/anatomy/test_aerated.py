"""Which air is lung, in a body of boxes on a grid of 2.5 mm."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.anatomy.aerated import WALL, find_aerated
from scripts.anatomy.body import find_body
from scripts.anatomy.downsampling import downsample, erode
from scripts.anatomy.lungs import segment_lungs
from scripts.anatomy.tissue import segment_tissue

SPACING = (2.5, 2.5, 2.5)
RIGHT_LUNG, LEFT_LUNG = np.s_[25:55, 25:75, 20:80], np.s_[75:105, 25:75, 20:80]


def body() -> np.ndarray:
    hu = np.full((130, 100, 100), -1000, np.int16)
    hu[10:120, 10:90] = 40
    hu[RIGHT_LUNG] = hu[LEFT_LUNG] = -850
    return hu


def aerated(hu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    coarse = downsample(hu, SPACING)
    filled = find_body(coarse)
    return find_aerated(coarse, filled, erode(filled, WALL, SPACING))


def test_both_lungs_and_nothing_else():
    lungs, airways = aerated(body())
    np.testing.assert_array_equal(lungs, body() == -850)
    assert not airways.any()


@pytest.mark.parametrize(
    ("place", "hu", "is_lung"),
    [
        (np.s_[45:85, 35:65, 83:97], -1000, False),  # 260 ml of gas
        (np.s_[30:50, 84:89, 30:70], -800, False),  # right below the skin: a crease
        (np.s_[30:50, 40:50, 2:16], -800, False),  # below the lungs: bowel with its contents
        (np.s_[60:70, 40:50, 40:60], -800, True),  # a piece of lung that a consolidation cut off
        (np.s_[60:62, 40:42, 40:42], -800, False),  # a speck
    ],
)
def test_other_air(place, hu, is_lung):
    scan = body()
    scan[place] = hu
    lungs, _ = aerated(scan)
    assert lungs[place].mean() == (1 if is_lung else 0)
    assert lungs[RIGHT_LUNG].all()


def test_trachea_is_taken_out_with_its_bronchi_however_close_the_lungs():
    scan = body()
    scan[42:75, 44:52, 54:62] = 40  # within the hilum of the right lung
    scan[45:75, 46:50, 56:60] = scan[62:68, 45:52, 60:] = -1000  # main bronchi, trachea
    lungs, airways = aerated(scan)
    assert airways[62:68, 45:52, 62:].all()
    assert airways[46:74, 46:50, 56:60].all()
    assert not (lungs & (scan == -1000))[60:70].any()
    mask = segment_lungs(segment_tissue(scan, SPACING)).mask
    assert not mask[46:74, 46:50, 56:60].any()
    assert mask[46:54, 54:60, 56:60].all()
    assert not mask[62:68, 45:52, 62:].any()


def test_table_and_blanket_are_no_body():
    scan = body()
    scan[:10, 10:90] = scan[120:, 10:90] = 40
    scan[:, 92:94] = scan[20:110, 4:7] = 200
    scan[:, 94:] = -700  # foam has the HU of lung
    found = find_body(downsample(scan, SPACING))
    assert found[:, 10:90].all()
    assert not found[:, 94:].any()
    assert not found[:, :4].any()


def test_lung_that_is_open_to_the_side_of_the_picture_is_inside_and_room_air_is_not():
    scan = body()[40:, :]
    found = find_body(downsample(scan, SPACING))
    assert found[:15, 25:75, 20:80].all()
    assert not found[:, :9].any()
    assert not found[81:].any()
