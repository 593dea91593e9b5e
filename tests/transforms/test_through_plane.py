"""The mean over neighbouring slices: against SciPy, in any order of arrival, up to the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from scripts.transforms.postprocessing import ThroughPlaneMeand
from scripts.transforms.through_plane import SliceMeans, neighbour_weights

MAPS = np.random.default_rng(0).random((1, 5, 4, 11)).astype(np.float32)


def averaged(maps: np.ndarray, weights: list[float]) -> np.ndarray:
    means = SliceMeans(weights, maps.shape[-1])
    found = [one for index in range(maps.shape[-1]) for one in means.add(torch.from_numpy(maps[..., index]))]
    assert [index for index, _ in found] == list(range(maps.shape[-1]))
    return np.stack([mean.numpy() for _, mean in found], axis=-1)


@pytest.mark.parametrize(("sigma", "spacing"), [(3.0, 1.0), (3.0, 5.0), (2.0, 0.8), (20.0, 1.0)])
@pytest.mark.parametrize("count", [1, 2, 3, 11])
def test_the_mean_is_that_of_a_gaussian_filter(sigma: float, spacing: float, count: int) -> None:
    maps = MAPS[..., :count]
    reach = int(3 * sigma / spacing)
    expected = ndimage.gaussian_filter1d(
        maps.astype(np.float64), sigma / spacing, axis=-1, mode="nearest", radius=reach
    )
    np.testing.assert_allclose(averaged(maps, neighbour_weights(sigma, spacing)), expected, atol=1e-6)


def test_without_a_neighbour_within_reach_every_slice_stays_as_it_is() -> None:
    for sigma, spacing in ((0.0, 1.0), (1.0, 5.0)):
        assert neighbour_weights(sigma, spacing) == [1.0]
    np.testing.assert_array_equal(averaged(MAPS, [1.0]), MAPS)


def test_a_slice_is_given_as_soon_as_its_neighbours_are_there() -> None:
    means = SliceMeans([0.5, 0.25], 3)
    one = torch.ones(1)
    assert list(means.add(0 * one)) == []
    assert [(index, float(mean)) for index, mean in means.add(4 * one)] == [(0, 1.0)]
    assert [(index, float(mean)) for index, mean in means.add(8 * one)] == [(1, 4.0), (2, 7.0)]


def item(**meta: object) -> dict[str, object]:
    affine = np.diag([-0.7, -0.7, 2.5, 1.0])
    affine[1, 2] = 9.0  # a gantry tilt: the slices lie 2.5 mm apart all the same
    stated = {"affine": affine, "original_affine": affine, **meta}
    image = MetaTensor(torch.zeros(1, 5, 4, 11), affine=torch.as_tensor(affine), meta=stated)
    return {"image": image, "pred": torch.from_numpy(MAPS), "box": torch.tensor([[0, 5, 5], [0, 4, 4], [2, 9, 11]])}


def test_slices_beyond_what_the_network_saw_have_no_say() -> None:
    found = ThroughPlaneMeand("pred", 3.0)(item())["pred"].numpy()
    np.testing.assert_array_equal(found[..., :2], MAPS[..., :2])
    np.testing.assert_array_equal(found[..., 9:], MAPS[..., 9:])
    np.testing.assert_array_equal(found[..., 2:9], averaged(MAPS[..., 2:9], neighbour_weights(3.0, 2.5)))
    everywhere = ThroughPlaneMeand("pred", 3.0, cropped=False)(item())["pred"].numpy()
    np.testing.assert_array_equal(everywhere, averaged(MAPS, neighbour_weights(3.0, 2.5)))


@pytest.mark.parametrize("meta", [{"picture": True}, {"voxel_size_known": False}])
def test_without_millimetres_nothing_is_averaged(meta: dict[str, object]) -> None:
    np.testing.assert_array_equal(ThroughPlaneMeand("pred", 3.0)(item(**meta))["pred"].numpy(), MAPS)
