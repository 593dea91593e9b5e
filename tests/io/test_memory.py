"""A scan in memory is the scan that its file gives."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from scripts.errors import UserError
from scripts.io.masks import mask_path, write_mask
from scripts.io.memory import scan_from_memory
from scripts.io.reading import read_scan

AFFINE = np.array([[-0.7, 0, 0, 120], [0, 0.7, 0, -90], [0, 0, 2.5, -300], [0, 0, 0, 1.0]])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    image = nib.Nifti1Image(np.random.default_rng(0).integers(-900, 200, (20, 24, 6)).astype(np.int16), AFFINE)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(2.0, -10.0)
    nib.save(image, tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


@pytest.mark.parametrize("kind", ["nibabel", "simpleitk", "pair"])
def test_every_kind_gives_the_scan_of_the_file(file: Path, kind: str) -> None:
    wanted = read_scan(file)
    loaded = nib.load(file)
    image = {
        "nibabel": loaded,
        "simpleitk": sitk.ReadImage(str(file)),
        "pair": (loaded.get_fdata(), loaded.affine),
    }[kind]
    scan = scan_from_memory(image)
    np.testing.assert_array_equal(scan.real(), wanted.real())
    np.testing.assert_allclose(scan.affine, wanted.affine, atol=1e-5)
    assert (scan.name, scan.voxel_size_known) == ("scan", True)
    assert [note.code for note in scan.notes] == [note.code for note in wanted.notes]


def test_stored_values_of_a_nibabel_image_are_not_unpacked_to_floats(file: Path) -> None:
    scan = scan_from_memory(nib.load(file))
    assert (scan.values.dtype, scan.slope, scan.intercept) == (np.int16, 2.0, -10.0)


def test_the_header_of_a_nibabel_image_is_judged_as_that_of_a_file(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((20, 24, 6), np.int16), AFFINE / [1000, 1000, 1000, 1])
    image.header.set_xyzt_units("meter")
    scan = scan_from_memory(image)
    np.testing.assert_allclose(scan.spacing, (0.7, 0.7, 2.5), rtol=1e-5)
    assert "unit_converted" in {note.code for note in scan.notes}


@pytest.mark.parametrize("code", [0, 2])
def test_a_nibabel_image_without_an_affine_has_that_of_its_file(tmp_path: Path, code: int) -> None:
    header = nib.Nifti1Header()
    header.set_sform(AFFINE, code)
    image = nib.Nifti1Image(np.zeros((20, 24, 6), np.int16), None, header)
    nib.save(image, tmp_path / "scan.nii")
    found, wanted = scan_from_memory(image), read_scan(tmp_path / "scan.nii")
    np.testing.assert_array_equal(found.affine, wanted.affine)
    assert (found.voxel_size_known, found.notes) == (wanted.voxel_size_known, wanted.notes)


def test_an_affine_that_was_changed_in_memory_holds(file: Path) -> None:
    image, moved = nib.load(file), AFFINE.copy()
    image.affine[:3, 3] += 5
    moved[:3, 3] += 5
    np.testing.assert_allclose(scan_from_memory(image).affine, moved, rtol=1e-6)


@pytest.mark.parametrize("flip", [1, -1])
def test_one_of_several_volumes(flip: int) -> None:
    array = np.random.default_rng(0).integers(-900, 200, (20, 24, 6, 2)).astype(">i2")[::flip]
    scan = scan_from_memory((array, AFFINE), volume=2)
    np.testing.assert_array_equal(scan.values, array[..., 1])
    assert scan.values.dtype.isnative
    with pytest.raises(UserError, match="2 volumes"):
        scan_from_memory((array, AFFINE))


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((20, 24, 6)), "without its affine"),
        ("scan.nii", "a str"),
        ((np.zeros((20, 24, 6), complex), AFFINE), "complex128"),
        ((np.ma.masked_less(np.arange(2880.0).reshape(20, 24, 6), 7), AFFINE), "7 values are masked"),
        (nib.Nifti1Image(np.ma.masked_equal(np.zeros((20, 24, 6)), 0), AFFINE), "2,880 values are masked"),
        ((np.zeros((20, 24, 6)), np.eye(3)), "shape"),
        ((np.zeros((20, 24, 6)), np.zeros((4, 4))), "singular"),
        (sitk.Image([20, 24, 6], sitk.sitkVectorUInt8, 3), "3 values a voxel"),
        (nib.Spm99AnalyzeImage(np.zeros((20, 24, 6), np.int16), None), "an image without its affine"),
    ],
)
def test_what_is_no_scan_is_refused(image: object, found: str) -> None:
    with pytest.raises(UserError, match=f"case_1: .*({found})"):
        scan_from_memory(image, name="case_1")


@pytest.mark.parametrize("kind", [np.ma.MaskedArray, np.matrix])
def test_arrays_of_other_classes_are_taken_as_they_are(kind: type[np.ndarray]) -> None:
    values = np.random.default_rng(0).integers(-900, 200, (20, 24)).astype(np.int16)
    scan = scan_from_memory((values.view(kind), AFFINE))
    assert type(scan.values) is np.ndarray
    np.testing.assert_array_equal(scan.values, values[..., None])


def test_an_affine_without_a_voxel_size_measures_nothing() -> None:
    scan = scan_from_memory((np.zeros((20, 24, 6)), np.eye(4)))
    assert not scan.voxel_size_known


def test_its_mask_is_written_as_nifti(file: Path, tmp_path: Path) -> None:
    scan = scan_from_memory(sitk.ReadImage(str(file)))
    path = mask_path(tmp_path, scan)
    written = nib.load(write_mask(np.ones(scan.values.shape, np.uint8), scan, path))
    assert path.name == "infection.nii.gz"
    np.testing.assert_allclose(written.affine, scan.affine, atol=1e-5)
