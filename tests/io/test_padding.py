"""Padding of any value outside of the reconstruction circle is air for every entry;
air stays as it is."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from pydicom import Dataset

from scripts.errors import UserError
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.io.dicom.reading import named_padding
from scripts.io.padding import Padding, find_padding
from scripts.io.reading import read_scan
from scripts.transforms.hounsfield import AIR_HU
from scripts.transforms.intensity import to_hounsfield
from tests.chains import network_grid

SIZE, DEPTH = 64, 5
DISTANCE = np.hypot(*np.meshgrid(np.arange(SIZE) - 31.5, np.arange(SIZE) - 31.5))


def chest(padding: float | None, radius: float = 32.0) -> np.ndarray:
    """Noisy tissue in noisy room air, HU, with one value outside of a circle."""
    noise = np.random.default_rng(0).normal(0, 20, (SIZE, SIZE, DEPTH))
    body = np.where((DISTANCE < 26)[..., None], 30.0, -995.0) + noise
    body = np.rint(np.maximum(body, AIR_HU))
    if padding is not None:
        body[radius < DISTANCE] = padding
    return body.astype(np.float32)


def hounsfield(array: np.ndarray) -> np.ndarray:
    return to_hounsfield(torch.from_numpy(array)[None])[0].numpy()


@pytest.mark.parametrize("padding", [0.0, -500.0, 3071.0, -2000.0, -3024.0, np.nan, np.inf])
@pytest.mark.parametrize("radius", [32.0, 30.0, 38.0])
def test_padding_of_any_value_becomes_air_and_nothing_else_changes(padding, radius):
    outside = np.broadcast_to((radius < DISTANCE)[..., None], (SIZE, SIZE, DEPTH))
    found = hounsfield(chest(padding, radius))
    assert (found[outside] == AIR_HU).all()
    np.testing.assert_array_equal(found[~outside], chest(None)[~outside])


@pytest.mark.parametrize("padding", [None, -1024.0, -1000.0, -951.0])
def test_a_scan_whose_outside_is_air_stays_as_it_is(padding):
    array = chest(padding)
    assert find_padding(lambda z: torch.from_numpy(array[..., z]), DEPTH) is None
    np.testing.assert_array_equal(hounsfield(array), array)


def test_what_is_no_circle_is_no_padding():
    array = chest(None)
    array[:, :8] = array[:, -8:] = 0.0  # two bars: a table, a body cut by the field of view and clipped
    assert find_padding(lambda z: torch.from_numpy(array[..., z]), DEPTH) is None
    array = chest(0.0)
    array[..., :3] = chest(None)[..., :3]  # most slices have none
    assert find_padding(lambda z: torch.from_numpy(array[..., z]), DEPTH) is None


def test_nan_inside_of_the_circle_is_still_refused():
    array = chest(np.nan)
    array[20:40, 20:40] = np.nan
    with pytest.raises(UserError, match="NaN or infinite"):
        hounsfield(array)


def test_a_named_padding_is_what_is_joined_to_the_border():
    values = torch.full((8, 8), 40.0)
    values[:, :2] = 1000.0
    values[5, 5] = 1000.0  # bone of the same value
    mask = Padding(990.0, 1000.0).mask(values)
    assert mask[:, :2].all()
    assert mask.sum() == 16


@pytest.mark.parametrize("axes", ["LPS", "RAS", "LAS"])
@pytest.mark.parametrize("padding", [0.0, 3071.0])
def test_segment_and_the_workflows_see_the_same_air(tmp_path, turned, axes, padding):
    image = nib.Nifti1Image(chest(padding).astype(np.int16), np.diag([-5.0, -5.0, 5.0, 1.0]))
    path = tmp_path / "scan.nii.gz"
    nib.save(turned(image, axes), path)
    slices = HounsfieldSlices(read_scan(path))
    grid = network_grid(size=SIZE)({"image": str(path)})["image"]
    for z in range(DEPTH):
        np.testing.assert_array_equal(slices[z].numpy(), grid[0, ..., z].numpy())
        np.testing.assert_array_equal(slices.rounded()[..., z], grid[0, ..., z].numpy())
        assert (slices[z].numpy()[DISTANCE > 32] == AIR_HU).all()
    assert any("reconstruction circle" in remark for remark in slices.map.remarks)


@pytest.mark.parametrize(
    ("signed", "value", "limit", "expected"),
    [
        (1, -2000, None, None),
        (1, 1024, None, (0, 0)),
        (0, 64536, None, (63512, 63512)),
        (1, 63536, None, None),
        (1, 1024, 1030, (0, 6)),
    ],
)
def test_what_dicom_names_as_padding(signed, value, limit, expected):
    header = Dataset()
    header.PixelRepresentation = signed
    header.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
    if limit is not None:
        header.add_new("PixelPaddingRangeLimit", "US", limit)
    found = named_padding(header, (1.0, -1024.0))
    assert (None if found is None else (found.low, found.high)) == expected
