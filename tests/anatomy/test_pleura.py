"""Opacities at the chest wall belong to the lung; liver and heart do not."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.anatomy.pleura import Polar, close_lung

SPACING = (2.5, 2.5, 2.5)
X, Y, Z = np.ogrid[:120, :90, :80]
CENTRE = (85.0, 45.0)  # between the lungs; the right one lies at smaller x
CHEST = ((X - 60) / 50) ** 2 + ((Y - 45) / 38) ** 2 < 1
LUNG = CHEST & (X < 70) & (Z > 8) & (Z < 72)


def opacity(depth: float, height: int = 20, side: int = 45, width: int = 18) -> np.ndarray:
    """What lies within `depth` mm of the wall, `width` x `height` voxels."""
    inside = ((X - 60) / (50 - depth / 2.5)) ** 2 + ((Y - 45) / (38 - depth / 2.5)) ** 2 < 1
    return LUNG & ~inside & (abs(Y - side) < width / 2) & (abs(Z - 40) < height / 2)


def close(lung: np.ndarray, room: np.ndarray | None = None) -> np.ndarray:
    return close_lung(lung, np.ones_like(lung) if room is None else room, SPACING, CENTRE)


@pytest.mark.parametrize("depth", [10, 25, 40])
def test_opacity_at_the_wall(depth):
    dense = opacity(depth)
    assert dense.any()
    whole = close(LUNG & ~dense)
    assert whole[dense].mean() > 0.95
    assert (whole & ~LUNG).sum() < 0.01 * LUNG.sum()


def test_opacity_within_the_lung_of_any_size():
    dense = (abs(X - 40) < 15) & (abs(Y - 45) < 15) & (abs(Z - 40) < 15)
    assert close(LUNG & ~dense)[dense].all()
    assert close((LUNG & ~dense)[15:])[dense[15:]].all()  # the field of view cuts the lung


def test_no_opacity_where_there_is_no_room_for_one():
    dent = opacity(25)
    assert close(LUNG & ~dent)[dent].mean() > 0.95
    assert close(LUNG & ~dent, ~dent)[dent].mean() < 0.5


def test_liver_and_heart_stay_outside():
    liver = ((X - 45) / 36) ** 2 + ((Y - 45) / 28) ** 2 + ((Z - 5) / 35) ** 2 < 1
    heart = ((X - 75) / 28) ** 2 + ((Y - 30) / 22) ** 2 + ((Z - 35) / 25) ** 2 < 1
    whole = close(LUNG & ~liver & ~heart)
    assert (whole & liver).sum() < 0.03 * liver.sum()
    assert (whole & heart).sum() < 0.03 * heart.sum()


def test_nothing_is_added_to_a_lung_without_opacities():
    assert (close(LUNG) & ~LUNG).sum() < 0.005 * LUNG.sum()


def test_polar_coordinates():
    polar = Polar.around((2, 1), (5, 4), (2.0, 3.0, 1.0))
    assert (polar.angle[4, 1], polar.angle[2, 3], polar.angle[0, 1], polar.angle[2, 0]) == (0, 90, 180, 270)
    assert (polar.radius[4, 1], polar.radius[2, 3]) == (4, 6)
