"""A label is known as the model's mask by its voxels, in whatever format it comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from scripts.monai_label.serving.model_masks import ModelMasks

SHAPE = (9, 7, 5)


def marked() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:5, 1:4, 3] = 1
    return mask


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes a mask as NIfTI; returns its path."""

    def written(mask: np.ndarray, name: str = "mask") -> str:
        nib.save(nib.Nifti1Image(mask, np.diag([-0.7, -0.7, 5.0, 1.0])), tmp_path / f"{name}.nii.gz")
        return str(tmp_path / f"{name}.nii.gz")

    return written


def test_it_is_known_in_other_formats_and_by_another_server(write: Callable[..., str], tmp_path: Path) -> None:
    ModelMasks(tmp_path).add(write(marked()), "a.nii.gz")
    image = sitk.GetImageFromArray(np.full_like(marked(), 3).T * marked().T)  # OHIF numbers segments by its own list
    sitk.WriteImage(image, str(tmp_path / "label.nrrd"))
    masks = ModelMasks(tmp_path)
    assert masks.holds(str(tmp_path / "label.nrrd"), "b.nii.gz")  # a scan that was uploaded after the session
    assert masks.holds(write(marked().astype(np.int16), "label"), "a.nii.gz")


def test_one_voxel_makes_it_an_annotators_label(write: Callable[..., str], tmp_path: Path) -> None:
    masks = ModelMasks(tmp_path)
    assert not masks.holds(write(marked()), "a.nii.gz")
    masks.add(write(marked()), "a.nii.gz")
    changed = marked()
    changed[5, 1, 3] = 1
    assert not masks.holds(write(changed, "changed"), "a.nii.gz")
    assert not masks.holds(write(marked().reshape(7, 9, 5), "other"), "a.nii.gz")


def test_an_empty_mask_belongs_to_its_scan(write: Callable[..., str], tmp_path: Path) -> None:
    masks, empty = ModelMasks(tmp_path), write(0 * marked())
    masks.add(empty, "/studies/a.nii.gz")
    assert masks.holds(empty, "/moved/a.nii.gz")
    assert not masks.holds(empty, "/studies/b.nii.gz")


def test_a_mask_is_written_once(write: Callable[..., str], tmp_path: Path) -> None:
    masks, mask = ModelMasks(tmp_path), write(marked())
    for _ in range(2):
        masks.add(mask, "a.nii.gz")
    assert len((tmp_path / "model_masks.txt").read_text().splitlines()) == 1
