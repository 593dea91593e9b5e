"""Whether a scan shows a body and lungs."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.anatomy.chest import Examination, examine
from scripts.anatomy.tissue import segment_tissue

SPACING = (2.2, 2.2, 4.5)


def examined(hu: np.ndarray, spacing: tuple[float, ...]) -> Examination:
    return examine(segment_tissue(hu, spacing))


def test_a_chest(phantom):
    seen = examined(phantom.image, SPACING)
    assert (seen.body, seen.lungs, seen.body_cut, seen.findings) == (True, True, False, [])


@pytest.mark.parametrize("shape", [(80, 80, 40), (80, 80, 1), (3, 3, 3)])
def test_no_body(shape):
    seen = examined(np.full(shape, -1000, np.int16), (2.5, 2.5, 2.5))
    assert not seen.body
    assert not seen.lungs
    assert seen.findings == ["There is no body in the scan."]


def test_a_body_without_lungs_and_one_with_bowel_gas(phantom):
    hu = np.full((120, 100, 60), -1000, np.int16)
    hu[20:100, 20:80] = 40
    for gas in (None, -1000):
        if gas:
            hu[40:60, 30:50, 20:40] = gas
        seen = examined(hu, (2.5, 2.5, 2.5))
        assert seen.body
        assert not seen.lungs
        assert "No lung is seen" in seen.findings[0]


def test_body_that_is_cut(phantom):
    seen = examined(phantom.image[30:], SPACING)
    assert seen.cut_sides == ["right"]
    assert seen.body_cut
    assert "patient's right" in seen.findings[0]


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["p001", "normal001"])
def test_real_chests_have_lungs(request, name):
    assert examined(*request.getfixturevalue(name)).lungs
