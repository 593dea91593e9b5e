"""The coarse grid against hand calculation, its morphology against scipy's exact distances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from scripts.anatomy.downsampling import (
    centre,
    choose_steps,
    chosen,
    close,
    dilate,
    downsample,
    enlarge,
    erode,
    fill_holes,
)


def test_averages_blocks_and_what_is_left_at_the_end():
    hu = np.arange(5 * 4 * 3, dtype=np.int16).reshape(5, 4, 3)  # 20 a step along x is 12, y 3, z 1
    coarse = downsample(hu, (1.1, 1.1, 5.0))
    assert coarse.steps == (2, 2, 1)
    assert coarse.spacing == (2.2, 2.2, 5.0)
    assert coarse.hu.shape == (3, 2, 3)
    assert coarse.hu[0, 0, 0] == round((0 + 3 + 12 + 15) / 4)
    assert coarse.hu[2, 1, 2] == round((12 * 4 + 3 * 2 + 2 + 12 * 4 + 3 * 3 + 2) / 2)  # one voxel wide


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_padding_metal_and_nan_do_not_pull_the_mean(dtype):
    hu = np.full((4, 4, 40), -1000, dtype)
    hu[:2] = -3024
    hu[2:, :2] = 3071
    if dtype != np.int16:
        hu[2:, 2:] = np.nan
    coarse = downsample(hu, (1.1, 1.1, 1.1))
    assert (coarse.hu[0] == -1024).all()
    assert (coarse.hu[1, 0] == 1500).all()
    assert (coarse.hu[1, 1] == (-1000 if dtype == np.int16 else -1024)).all()
    assert coarse.hu.dtype == np.int16


def test_slabs_join_without_a_seam():
    hu = np.random.default_rng(0).integers(-1000, 1000, (7, 6, 53)).astype(np.int16)
    coarse = downsample(hu, (1.0, 1.0, 0.7))
    assert coarse.steps == (2, 2, 3)
    assert coarse.hu.shape == (4, 3, 18)
    np.testing.assert_allclose(coarse.hu[1, 1, 5], hu[2:4, 2:4, 15:18].mean(), atol=0.5)
    np.testing.assert_allclose(coarse.hu[3, 2, 17], hu[6:, 4:, 51:].mean(), atol=0.5)


@pytest.mark.parametrize(
    ("shape", "spacing"), [((4, 4), (1, 1, 1)), ((0, 4, 4), (1, 1, 1)), ((4, 4, 4), (1, 0, 1)), ((4, 4, 4), (1, 1, -2))]
)
def test_refuses_what_is_no_volume(shape, spacing):
    with pytest.raises(ValueError, match="expected"):
        downsample(np.zeros(shape, np.int16), spacing)


def test_balls_are_round_in_mm():
    point = np.zeros((21, 21, 21), bool)
    point[10, 10, 10] = True
    ball = dilate(point, 6.1, (2.0, 3.0, 6.0))
    assert np.flatnonzero(ball[:, 10, 10]).tolist() == list(range(7, 14))
    assert np.flatnonzero(ball[10, :, 10]).tolist() == list(range(8, 13))
    assert np.flatnonzero(ball[10, 10]).tolist() == [9, 10, 11]
    np.testing.assert_array_equal(erode(ball, 6.1, (2.0, 3.0, 6.0)), point)


def test_closing_bridges_a_gap_up_to_its_diameter_and_does_not_grow_at_the_border():
    slab = np.zeros((30, 30, 30), bool)
    slab[:, :, :10] = slab[:, :, 16:] = True
    closed = close(slab, 7.0, (2.0, 2.0, 2.0))  # 12 mm apart
    assert closed[8:-8, 8:-8].all()
    assert not close(slab, 4.0, (2.0, 2.0, 2.0))[:, :, 12:14].any()


def test_enlarges_by_the_nearest_block():
    plane = np.array([[1, 2], [0, 1]], np.uint8)
    np.testing.assert_array_equal(enlarge(plane, (2, 3, 1), (3, 4, 9)), [[1, 1, 1, 2], [1, 1, 1, 2], [0, 0, 0, 1]])


def test_holes_centres_and_labels_are_those_of_scipy():
    mask = ndimage.gaussian_filter(np.random.default_rng(2).random((30, 25, 20)), 1.5) > 0.5
    np.testing.assert_array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))
    assert [centre(mask, axis) for axis in range(3)] == list(ndimage.center_of_mass(mask))
    parts, count = ndimage.label(mask)
    assert count > 1
    np.testing.assert_array_equal(chosen(parts, {1, count}), np.isin(parts, [1, count]))


@pytest.mark.parametrize("morph", [erode, dilate])
def test_a_ball_reaches_as_far_in_a_small_part_of_a_large_array(morph):
    mask = np.zeros((40, 40, 40), bool)
    mask[15:24, 14:26, 15:22] = np.random.default_rng(4).random((9, 12, 7)) < 0.95
    inside = ndimage.distance_transform_edt(mask, sampling=(1.5, 2.0, 3.0))
    outside = ndimage.distance_transform_edt(~mask, sampling=(1.5, 2.0, 3.0))
    expected = inside > 3.1 if morph is erode else outside <= 3.1
    np.testing.assert_array_equal(morph(mask, 3.1, (1.5, 2.0, 3.0)), expected)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(20, 17, 9), (3, 40, 1), (9, 2, 30)])
@pytest.mark.parametrize("radius", [0.0, 2.6, 10.0])
def test_balls_are_those_of_exact_distances(order, shape, radius):
    spacing = (2.0, 2.5, 5.0)
    mask = np.asarray(ndimage.gaussian_filter(np.random.default_rng(1).random(shape), 1) < 0.5, order=order)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    np.testing.assert_array_equal(erode(mask, radius, spacing), inside > radius)
    np.testing.assert_array_equal(dilate(mask, radius, spacing), outside <= radius)


@pytest.mark.parametrize("size", [0.5, 0.9, 1.0, 1.25, 1.5, 2.0, 2.25, 4.5, 5.0])
def test_the_last_digits_of_a_voxel_size_change_nothing(size):
    """A header keeps sizes in single or double precision; a tie must not turn into another grid."""
    mask = np.zeros((13, 13, 13), bool)
    mask[6, 6, 6] = True
    sizes = [(size * factor,) * 3 for factor in (1, 1 - 1e-7, 1 + 1e-7, 1 - 1e-16, 1 + 2e-16)]
    assert len({choose_steps(one) for one in sizes}) == 1
    for steps in (1, 3, 5):  # a ball that reaches exactly to the middle of a voxel
        assert len({dilate(mask, steps * size, one).tobytes() for one in sizes}) == 1
