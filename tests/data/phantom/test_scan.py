"""The phantom: anatomy that is where it should be, infection that no HU window finds."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.data.phantom.grid import VoxelGrid, coverage, ellipsoid, noise, tubes
from scripts.data.phantom.lungs import LEFT, RIGHT, grow_tree
from scripts.data.phantom.scan import make_phantom

SMALL = {"shape": (80, 80, 20), "spacing": (4.4, 4.4, 12.8)}


@pytest.fixture(scope="module")
def phantoms():
    """Eight patients of the default size, one of them healthy."""
    return [make_phantom((0, number), infected=number != 4) for number in range(8)]


def best_window_dice(image, truth):
    """The best Dice over all windows (lower, upper), in steps of 8 HU."""
    edges = np.arange(-1024, 1032, 8)
    inside = np.concatenate([[0], np.histogram(image[truth > 0], edges)[0].cumsum()])
    every = np.concatenate([[0], np.histogram(image, edges)[0].cumsum()])
    hits, size = inside[None] - inside[:, None], every[None] - every[:, None]
    return np.max(np.where(size > 0, 2 * hits / np.maximum(size + truth.sum(), 1), 0))


def test_window_search_finds_a_perfect_window():
    image = np.array([-900, -600, -500, 40, 60])
    assert best_window_dice(image, np.array([0, 1, 1, 0, 0])) == 1
    assert best_window_dice(image, np.array([0, 1, 0, 1, 0])) == pytest.approx(4 / 5)


def test_no_window_finds_the_infection(phantoms):
    image = np.concatenate([one.image.ravel() for one in phantoms])
    infection = np.concatenate([one.infection.ravel() for one in phantoms])
    lungs = np.concatenate([one.lungs.ravel() for one in phantoms]) > 0
    assert best_window_dice(image, infection) < 0.3
    assert best_window_dice(image[lungs], infection[lungs]) < 0.6


def test_sizes_of_infection_vary(phantoms):
    shares = np.array([one.infection.sum() / (one.lungs > 0).sum() for one in phantoms])
    assert shares[4] == 0
    infected = np.delete(shares, 4)
    assert infected.min() > 0.002
    assert infected.min() < 0.03
    assert 0.15 < infected.max() < 0.5


def test_infection_has_ground_glass_and_consolidation_inside_the_lungs(phantoms):
    values = np.concatenate([one.image[one.infection > 0] for one in phantoms])
    assert np.mean((values > -750) & (values < -300)) > 0.6
    assert 0.03 < np.mean((values > -100) & (values < 100)) < 0.4
    assert all(np.all(one.lungs[one.infection > 0] > 0) for one in phantoms)


def test_tissues_have_their_hu(phantoms):
    healthy = phantoms[4]
    lung = healthy.image[healthy.lungs > 0]
    assert -900 < np.median(lung) < -780
    assert -1010 < np.median(healthy.image[:10, :10]) < -990
    assert np.mean(lung > -200) < 0.2  # vessels and borders
    assert (healthy.image > 250).sum() > 1000  # bone
    assert 3000 < (healthy.lungs > 0).sum() * 2.2 * 2.2 * 8 / 1000 < 6000  # ml


def test_arrays_are_lps(phantoms):
    for one in phantoms[:3]:
        left, right = (np.argwhere(one.lungs == code).mean(axis=0) for code in (LEFT, RIGHT))
        assert left[0] - right[0] > 50  # x grows to the patient's left
        assert (one.lungs == RIGHT).sum() > (one.lungs == LEFT).sum()  # the heart lies left
        bone = np.argwhere(one.image > 250).mean(axis=0)
        assert bone[1] > (left[1] + right[1]) / 2 + 5  # the spine lies behind
        top, bottom = (one.image[70:90, 60:100, k].min() for k in (-4, 3))
        assert top < -700 < bottom  # trachea above, liver below
        world = one.affine @ np.array([*left, 1])
        assert world[0] < (one.affine @ np.array([*right, 1]))[0]  # RAS+: left is negative
        np.testing.assert_allclose(np.diag(one.affine), [-2.2, -2.2, 8, 1])


def test_same_seed_same_arrays_and_types():
    first, again, other = (make_phantom(seed, **SMALL) for seed in (7, 7, 8))
    for name, dtype in (("image", np.int16), ("infection", np.uint8), ("lungs", np.uint8)):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert getattr(first, name).dtype == dtype
        assert getattr(first, name).shape == SMALL["shape"]
    assert np.mean(first.image != other.image) > 0.5
    assert set(np.unique(first.lungs)) == {0, 1, 2}
    assert set(np.unique(first.infection)) == {0, 1}


def test_healthy_twin_differs_only_in_the_lungs():
    sick, healthy = (make_phantom(3, infected=infected, **SMALL) for infected in (True, False))
    assert sick.infection.any()
    assert not healthy.infection.any()
    np.testing.assert_array_equal(sick.lungs, healthy.lungs)
    changed = np.abs(sick.image.astype(int) - healthy.image) > 40
    assert np.mean(changed[sick.infection > 0]) > 0.9
    assert np.mean(changed[sick.lungs == 0]) < 0.01


def test_field_of_view_without_lung_is_refused():
    with pytest.raises(ValueError, match="no lung"):
        make_phantom(0, shape=(16, 16, 8), spacing=(0.5, 0.5, 0.5))


def test_coverage_keeps_the_volume_of_a_ball_on_thick_slices():
    grid = VoxelGrid((60, 60, 16), (1.5, 1.5, 6))
    share = coverage(ellipsoid(grid, (0.4, -0.3, 1), (30, 30, 30)))
    assert share.sum() * np.prod(grid.step) == pytest.approx(4 / 3 * np.pi * 30**3, rel=0.01)
    assert share.min() == 0
    assert share.max() == 1


def test_tubes_thinner_than_a_voxel_keep_their_volume():
    grid = VoxelGrid((40, 40, 20), (2, 2, 8))
    starts, ends = np.array([[-20.0, -10, -40], [-30, 20, 0]]), np.array([[25.0, 15, 50], [30, 20, 0]])
    radii = np.array([0.8, 3.0])
    expected = np.sum(np.pi * radii**2 * np.linalg.norm(ends - starts, axis=1))
    assert tubes(grid, starts, ends, radii).sum() * np.prod(grid.step) == pytest.approx(expected, rel=0.02)
    column = tubes(grid, starts[1:], ends[1:], radii[1:])
    assert np.flatnonzero(column.any(axis=(0, 2))).tolist() == [28, 29, 30, 31]  # y 17 to 23 mm


def test_grid_index_inverts_points():
    grid = VoxelGrid((5, 6, 7), (2, 3, 4), scale=(1.1, 0.9, 1), offset=(3, -2, 1))
    mask = np.zeros(grid.shape, bool)
    mask[1, 4, 6] = mask[3, 0, 2] = True
    np.testing.assert_array_equal(grid.index(grid.points(mask)), np.argwhere(mask))
    np.testing.assert_allclose(grid.points(mask)[0], [grid.x[1, 0, 0], grid.y[0, 4, 0], grid.z[0, 0, 6]], rtol=1e-6)


def test_tree_obeys_murrays_law():
    starts, ends, radii = grow_tree(np.zeros(3), np.array([[2.0, 0, 0], [1, 0, 0], [1, 1, 0]]), twig=2.0)
    np.testing.assert_array_equal(ends, [[1, 0, 0], [1, 1, 0], [2, 0, 0]])
    np.testing.assert_array_equal(starts, [[0, 0, 0], [1, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(radii**3, [24, 8, 8])  # itself and two branches


def test_noise_is_standardised_and_smooth():
    grid = VoxelGrid((64, 64, 16), (2, 2, 8))
    field = noise(np.random.default_rng(0), grid, 10)
    assert field.std() == pytest.approx(1, abs=1e-3)
    assert np.corrcoef(field[:-1].ravel(), field[1:].ravel())[0, 1] > 0.95
