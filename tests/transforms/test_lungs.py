"""Lung-only preprocessing: which mask is used, and what the network sees of the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.data.phantom import make_phantom
from scripts.errors import find_user_error
from scripts.transforms.lungs import OUTSIDE_HU, FindLungsd, LungsOnlyd
from scripts.transforms.postprocessing import ScanProbabilities
from scripts.transforms.preprocessing import NetworkGrid, NetworkInput, Preprocessing

MakeScan = Callable[..., tuple[Path, Path]]


@pytest.fixture
def scan(make_scan: MakeScan, tmp_path: Path, turned) -> dict[str, str]:
    """A scan of 40 x 36 x 6 voxels with its label and a lung mask, the mask stored in another order of axes."""
    image, label = make_scan()
    lung = np.zeros((40, 36, 6), np.uint8)
    lung[10:20, 4:32, 1:5], lung[20:30, 4:32, 1:5] = 1, 2
    path = tmp_path / "lung.nii.gz"
    nib.save(turned(nib.Nifti1Image(lung, nib.load(image).affine), "SRA"), path)
    return {"image": str(image), "label": str(label), "lung": str(path)}


def test_what_lies_outside_of_a_given_mask_is_taken_out(scan: dict[str, str]) -> None:
    whole = NetworkGrid(size=64)(dict(scan))["image"].numpy()[0]
    found = NetworkGrid(size=64, lung_only=True)(dict(scan))
    rows = np.floor((np.arange(64) + 0.5) * 40 / 64).astype(int)
    columns = np.floor((np.arange(64) + 0.5) * 36 / 64).astype(int)
    lung = np.zeros((40, 36, 6), bool)
    lung[10:30, 4:32, 1:5] = True
    lung = lung[np.ix_(rows, columns)]
    np.testing.assert_array_equal(found["image"].numpy()[0], np.where(lung, whole, OUTSIDE_HU))
    assert "lung" not in found
    assert found["label"].sum() > 0


def test_the_network_sees_zero_there_and_the_window_elsewhere(scan: dict[str, str]) -> None:
    inside = NetworkGrid(size=64, lung_only=True)(dict(scan))["image"].as_tensor() > OUTSIDE_HU
    hu = NetworkGrid(size=64)(dict(scan))["image"].as_tensor()
    seen = Preprocessing(size=64, z_score=False, lung_only=True)(dict(scan))["image"].as_tensor()
    assert not seen[~inside].any()
    torch.testing.assert_close(seen[inside], ((hu + 1250) / 1500).clamp(0, 1)[inside])
    grid = NetworkGrid(size=64, lung_only=True)(dict(scan))
    assert torch.equal(NetworkInput(z_score=False)(grid)["image"].as_tensor(), seen)


def test_probabilities_return_to_the_scans_grid(scan: dict[str, str], turned) -> None:
    nib.save(turned(nib.load(scan["image"]), "IRP"), scan["image"])
    preprocessing = Preprocessing(size=32, z_score=False, lung_only=True, label_grid="scan")
    item = preprocessing({key: scan[key] for key in ("image", "label")})
    logits = MetaTensor(torch.where(item["image"].as_tensor() > 0.5, 20.0, -20.0), meta=item["image"].meta)
    back = ScanProbabilities(preprocessing)({**item, "pred": logits})["pred"]
    assert back.shape[1:] == nib.load(scan["image"]).shape
    np.testing.assert_allclose(back.affine, nib.load(scan["image"]).affine, atol=1e-9)


@pytest.mark.parametrize(
    ("fault", "message"), [("depth", "40 x 36 x 5 voxels, its image has 40 x 36 x 6"), ("empty", "is empty")]
)
def test_a_mask_that_does_not_fit_is_refused(fault: str, message: str, scan: dict[str, str]) -> None:
    mask = np.ones((40, 36, 5), np.uint8) if fault == "depth" else np.zeros((40, 36, 6), np.uint8)
    nib.save(nib.Nifti1Image(mask, nib.load(scan["image"]).affine), scan["lung"])
    with pytest.raises(RuntimeError, match="FindLungsd") as caught:
        NetworkGrid(size=32, lung_only=True)(dict(scan))
    assert message in str(find_user_error(caught.value))


def test_without_a_mask_the_lungs_are_found() -> None:
    phantom = make_phantom(1, shape=(160, 128, 60), spacing=(2.2, 2.2, 4.5))
    affine = np.diag([-2.2, -2.2, 4.5, 1.0])
    image = MetaTensor(torch.from_numpy(phantom.image.astype(np.float32))[None], affine=affine)
    item = LungsOnlyd("image", "lung")(FindLungsd("image", "lung")({"image": image}))
    kept = item["image"].numpy()[0] > OUTSIDE_HU
    truth = phantom.lungs > 0
    assert 2 * (kept & truth).sum() / (kept.sum() + truth.sum()) > 0.93
    np.testing.assert_array_equal(item["image"].numpy()[0][kept], phantom.image[kept])
    assert kept[phantom.infection > 0].mean() > 0.95


def test_where_no_lungs_are_found_the_whole_scan_is_used(scan: dict[str, str], caplog) -> None:
    del scan["lung"]
    with caplog.at_level(logging.WARNING):
        found = NetworkGrid(size=32, lung_only="true")(dict(scan))["image"]
    assert torch.equal(found.as_tensor(), NetworkGrid(size=32)(dict(scan))["image"].as_tensor())
    assert "the whole scan is used" in caplog.text
