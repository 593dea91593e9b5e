"""Projections against line integrals by hand."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from scripts.errors import UserError
from scripts.research.radiograph import WATER, project_attenuation, project_sum, radiograph_files


def chest() -> tuple[np.ndarray, np.ndarray]:
    """Air with a block of water, 10 voxels deep, at the patient's right and near the head;
    a lesion in it."""
    hu = np.full((40, 30, 20), -1000, np.int16)
    hu[4:14, 5:15, 12:18] = 0
    mask = np.zeros(hu.shape, np.uint8)
    mask[6:10, 6:9, 14:16] = 1
    return hu, mask


def test_attenuation_is_the_line_integral_in_mm() -> None:
    hu, mask = chest()
    seen = project_attenuation(hu, mask, (1.0, 2.0, 3.0))
    assert seen.picture.shape == (60, 40)  # 20 slices of 3 mm at columns of 1 mm
    assert set(np.unique(seen.picture)) >= {0, 255}  # air and 20 mm of water, nothing denser
    np.testing.assert_allclose(seen.lesion_mm.max(), 6)  # 3 voxels of 2 mm
    bright = np.argwhere(seen.picture == 255)
    assert bright[:, 1].min() == 4  # the patient's right is at the left
    assert bright[:, 1].max() == 13
    assert bright[:, 0].max() < 30  # near the head, at the top


def test_denser_and_longer_paths_are_brighter_in_proportion() -> None:
    hu = np.full((4, 50, 1), -1000, np.int16)
    hu[1, :10], hu[2, :10], hu[3, :20] = 0, 500, 0
    seen = project_attenuation(hu, np.zeros(hu.shape, np.uint8), (1.0, 1.0, 1.0))
    integrals = WATER * np.array([0, 10, 15, 20])
    low, high = np.percentile(integrals, (0.5, 99.5))
    expected = np.clip((integrals - low) / (high - low), 0, 1) * 255
    np.testing.assert_allclose(seen.picture[0], expected, atol=0.51)


def test_the_plain_sum_of_the_source() -> None:
    hu, mask = chest()
    seen = project_sum(hu, mask)
    assert seen.picture.shape == (300, 40)
    grey = (np.clip((hu + 1250) / 1500, 0, 1) * 255).astype(np.uint8)
    grey[mask > 0] = 255
    total = grey.sum(axis=1, dtype=float)  # (X, Z)
    row = seen.picture[round((20 - 1 - 14 + 0.5) * 15)]  # in the middle of slice 14
    np.testing.assert_allclose(row, total[:, 14] / total.max() * 255, atol=1.01)


def test_files(tmp_path: Path) -> None:
    hu, mask = chest()
    affine = np.diag([-1.0, -2, 3, 1])
    affine[:3, 3] = 5
    for name, array in (("scan", hu), ("mask", mask)):
        nib.save(nib.Nifti1Image(array, affine), tmp_path / f"{name}.nii.gz")
    files = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"
    out = radiograph_files(*files, tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == ["lesion.png", "lesion_tenths_of_mm.png", "radiograph.png"]
    depth = np.asarray(Image.open(out / "lesion_tenths_of_mm.png"))
    assert depth.max() == 60
    assert (depth > 0).any(axis=1).sum() == 6  # two slices of 3 mm at rows of 1 mm, not one more
    assert set(np.unique(np.asarray(Image.open(out / "lesion.png")))) == {0, 255}
    with pytest.raises(UserError, match="out: exists"):
        radiograph_files(*files, out)
    radiograph_files(*files, out, method="sum", overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["lesion.png", "lesion_voxels.png", "radiograph.png"]
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="out: exists"):
        radiograph_files(*files, out, overwrite=True)
    with pytest.raises(UserError, match="method is 'magic'"):
        radiograph_files(*files, tmp_path / "new", method="magic")
    assert not (tmp_path / "new").exists()


def test_line_integrals_need_a_voxel_size(tmp_path: Path) -> None:
    hu, mask = chest()
    for name, array in (("scan", hu), ("mask", mask)):
        nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1, 1, 1])), tmp_path / f"{name}.nii.gz")
    files = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"
    with pytest.raises(UserError, match="voxel size is unknown"):
        radiograph_files(*files, tmp_path / "out")
    radiograph_files(*files, tmp_path / "out", method="sum")
