"""Lungs as the second channel of a label."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.transforms.lung_target import AppendLungsd
from scripts.transforms.lungs import FindLungsd
from tests.chains import chain

APPEND = AppendLungsd("label", "lung", "image")


def test_codes_of_both_lungs_are_one_target_and_255_is_unknown() -> None:
    label, lung = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    label[0, 0, 0, 0], lung[0, 0, 0, 0], lung[0, 1, 0, 0], lung[..., 1] = 1, 1, 2, 255
    item = APPEND({"image": torch.zeros(1, 4, 4, 2), "label": label, "lung": lung})
    assert "lung" not in item
    assert torch.equal(item["label"][:1], label)
    assert item["label"][1, :, :, 0].tolist() == [[1, 0], [1, 0]]
    assert (item["label"][1, :, :, 1] == -1).all()


def test_without_a_mask_all_lungs_are_unknown() -> None:
    label = torch.ones(1, 2, 2, 1)
    assert (APPEND({"image": label, "label": label})["label"][1] == -1).all()


def test_a_scan_without_infection_needs_no_label() -> None:
    lung = torch.ones(1, 2, 2, 1)
    found = APPEND({"image": torch.full((1, 4, 4, 1), -800.0), "lung": lung})["label"]
    assert torch.equal(found, torch.cat([torch.zeros_like(lung), lung]))


def test_thresholds_find_what_a_given_mask_leaves_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    image = MetaTensor(torch.zeros(1, 4, 4, 2))
    by_thresholds = torch.zeros(1, 4, 4, 2)
    by_thresholds[:, 2:] = 1
    monkeypatch.setattr("scripts.transforms.lungs._found", lambda _: MetaTensor(by_thresholds))
    given = torch.zeros(1, 4, 4, 2)
    given[:, :1, :, 0], given[..., 1] = 2, 255
    mask = FindLungsd("image", "lung")({"image": image, "lung": MetaTensor(given)})["lung"]
    assert torch.equal(mask[..., 1], by_thresholds[..., 1])
    assert mask[..., 0].sum() == 4
    assert mask[:, 0, :, 0].all()


def test_the_grid_of_a_training_stacks_both_targets_at_the_network_s_size(tmp_path: Path) -> None:
    """A mask stored in another order of axes lands on the image's voxels."""
    affine, label = np.diag([-2.0, -2, 3, 1]), np.zeros((16, 16, 3), np.uint8)
    lung = np.zeros_like(label)
    lung[:4], label[1:3, 2:4, 1], lung[..., 2] = 1, 1, 255
    flipped = nib.Nifti1Image(lung[::-1], np.diag([2.0, -2, 3, 1]) + np.pad([[-30.0]], ((0, 3), (3, 0))))
    for name, image in (
        ("image", nib.Nifti1Image(np.full(label.shape, -800, np.int16), affine)),
        ("label", nib.Nifti1Image(label, affine)),
        ("lung", flipped),
    ):
        nib.save(image, tmp_path / f"{name}.nii.gz")
    case = {key: str(tmp_path / f"{key}.nii.gz") for key in ("image", "label", "lung")}
    grid = chain("network_grid", "networks/fv_paspp_unet3d", "lungs", spatial_size=32)
    item = grid(dict(case))
    assert item["image"].shape == (1, 32, 32, 3)
    assert item["label"].shape == (2, 32, 32, 3)
    expected = np.where(lung == 255, -1, lung.astype(int)).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(item["label"][1].numpy(), expected)
    np.testing.assert_array_equal(item["label"][0].numpy(), label.repeat(2, 0).repeat(2, 1))
