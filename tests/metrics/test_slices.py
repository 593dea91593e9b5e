from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from scripts.metrics.slices import batch_to_slices, case_to_slices, per_slice


def test_last_axis_of_a_volume_counts_the_slices():
    volumes = torch.arange(2 * 3 * 4 * 5).view(2, 1, 3, 4, 5)
    slices = batch_to_slices(volumes)
    assert slices.shape == (10, 1, 3, 4)
    for case in range(2):
        for z in range(5):
            assert torch.equal(slices[5 * case + z, 0], volumes[case, 0, :, :, z])


def test_a_single_volume_is_not_copied():
    volume = torch.zeros(1, 3, 4, 5)
    assert case_to_slices(volume).data_ptr() == volume.data_ptr()


@pytest.mark.parametrize(
    ("shape", "slices"),
    [
        ((1, 6, 7), (1, 1, 6, 7)),
        ((1, 1, 6, 7), (1, 1, 6, 7)),
        ((1, 6, 7, 3), (3, 1, 6, 7)),
        ((1, 6, 7, 1), (1, 1, 6, 7)),
        ((1, 1, 6, 7, 3), (3, 1, 6, 7)),
    ],
)
def test_shapes_of_a_case(shape, slices):
    found = case_to_slices(MetaTensor(torch.zeros(shape)))
    assert found.shape == slices
    assert type(found) is torch.Tensor


@pytest.mark.parametrize("shape", [(6, 7), (2, 6, 7), (2, 6, 7, 3), (2, 1, 6, 7, 3), (2, 1, 6, 7)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="expected"):
        case_to_slices(torch.zeros(shape))


def test_batches_have_four_or_five_axes():
    assert batch_to_slices(torch.zeros(3, 1, 4, 4)).shape == (3, 1, 4, 4)
    with pytest.raises(ValueError, match="expected"):
        batch_to_slices(torch.zeros(1, 4, 4))


@pytest.mark.parametrize(("max_pixels", "calls"), [(12, [1] * 7), (1, [1] * 7), (40, [3, 3, 1]), (1000, [7])])
def test_pixels_of_a_call_are_bounded(max_pixels, calls):
    prob, target, seen = torch.rand(7, 1, 3, 4), torch.rand(7, 1, 3, 4), []

    def mean_difference(p, t):
        seen.append(len(p))
        return (p - t).mean((1, 2, 3))

    found = per_slice(mean_difference, prob, target, max_pixels)
    torch.testing.assert_close(found, (prob - target).mean((1, 2, 3)))
    assert seen == calls
