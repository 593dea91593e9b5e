from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import convex_hull_image

from scripts.anatomy.hull import convex_hull


@pytest.mark.parametrize("fraction", [0.003, 0.05, 0.9])
@pytest.mark.parametrize("shape", [(1, 7), (9, 1), (40, 31)])
def test_it_is_the_hull_of_scikit_image(shape: tuple[int, int], fraction: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        mask = rng.random(shape) < fraction
        mask[rng.integers(shape[0]), rng.integers(shape[1])] = True
        np.testing.assert_array_equal(convex_hull(mask), convex_hull_image(mask))


def test_nothing_has_no_hull() -> None:
    assert not convex_hull(np.zeros((5, 6), bool)).any()


def test_a_ring_is_filled() -> None:
    x, y = np.mgrid[:31, :31] - 15
    disc = x**2 + y**2 < 150
    np.testing.assert_array_equal(convex_hull(disc & ~ndimage.binary_erosion(disc)), convex_hull_image(disc))
