"""The workflows on real CT (docs/data.md says which); the weights are random,
geometry does not mind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813

from tests.bundle_runner import NARROW, run_bundle

pytestmark = [pytest.mark.real_data, pytest.mark.slow]

INFERENCE = "configs/inference.yaml"


@pytest.fixture
def checkpoint(make_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model.pt", size=256)


def segment(scan: Path, checkpoint: Path, out: Path) -> nib.Nifti1Image:
    run_bundle("inference", INFERENCE, dataset_dir=scan, checkpoint=checkpoint, output_dir=out, device="cpu")
    (mask,) = out.iterdir()
    return nib.load(mask)


def assert_geometry(mask: nib.Nifti1Image, scan: nib.Nifti1Image) -> None:
    assert mask.shape == scan.shape
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(mask.affine, scan.affine)
    for field in ("sform_code", "qform_code", "xyzt_units", "pixdim"):
        np.testing.assert_array_equal(mask.header[field], scan.header[field])


@pytest.mark.parametrize(
    "name",
    [
        "totalsegmentator_chest/chest_a.nii.gz",
        "totalsegmentator_chest/chest_b.nii.gz",
        "covid_ct_md/normal001_ct_256.nii.gz",
    ],
)
def test_masks_have_the_scans_geometry(name: str, checkpoint: Path, lung_ct_data: Path, tmp_path: Path) -> None:
    scan = nib.load(lung_ct_data / name)
    mask = segment(lung_ct_data / name, checkpoint, tmp_path / "masks")
    assert_geometry(mask, scan)
    assert set(np.unique(np.asarray(mask.dataobj))) == {0, 1}


def test_a_dicom_series_converted_by_simpleitk(checkpoint: Path, lung_ct_data: Path, tmp_path: Path) -> None:
    folder = str(lung_ct_data / "covid_ct_md" / "P001")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder, reader.GetGDCMSeriesIDs(folder)[0]))
    (tmp_path / "scans").mkdir()
    path = tmp_path / "scans" / "P001.nii.gz"
    sitk.WriteImage(reader.Execute(), str(path))
    scan = nib.load(path)
    assert scan.shape == (512, 512, 148)
    assert_geometry(segment(path, checkpoint, tmp_path / "masks"), scan)


def test_another_orientation_and_an_oblique_affine_give_the_same_mask(
    checkpoint: Path, turned: Callable[..., nib.Nifti1Image], lung_ct_data: Path, tmp_path: Path
) -> None:
    scan = nib.load(lung_ct_data / "totalsegmentator_chest" / "chest_a.nii.gz")
    masks = {}
    back = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("SRA"), nib.orientations.io_orientation(scan.affine)
    )
    angle = np.deg2rad(12)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    stored = {
        "as_is": scan,
        "turned": turned(scan, "SRA"),
        "oblique": nib.Nifti1Image(np.asarray(scan.dataobj), turn @ scan.affine),
    }
    for name, image in stored.items():
        path = tmp_path / "scans" / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nib.save(image, path)
        mask = segment(path, checkpoint, tmp_path / name)
        assert_geometry(mask, nib.load(path))
        masks[name] = np.asarray(mask.dataobj)
    assert 0 < masks["as_is"].mean() < 1
    np.testing.assert_array_equal(masks["oblique"], masks["as_is"])
    np.testing.assert_array_equal(nib.orientations.apply_orientation(masks["turned"], back), masks["as_is"])


def test_training_and_evaluation_on_real_slices_and_volumes(lung_ct_data: Path, tmp_path: Path) -> None:
    settings = {**NARROW, "max_epochs": 1, "spatial_size": 64, "sampling": "infected"}
    evaluate = "['configs/train.yaml','configs/evaluate.yaml']"
    for name, cases in (("covid_semiseg", 10), ("covid19_ct_seg", 1)):
        dataset, out = lung_ct_data / name, tmp_path / name
        run_bundle("training", "configs/train.yaml", dataset_dir=dataset, output_dir=out, **settings)
        run_bundle(
            "evaluation",
            evaluate,
            dataset_dir=dataset,
            checkpoint=out / "model.pt",
            output_dir=out / "tables",
            device="cpu",
        )
        rows = pd.read_csv(out / "tables" / "metrics.csv")
        assert len(rows) >= cases
        assert rows["case"].is_unique
        summary = json.loads((out / "tables" / "summary.json").read_text())
        assert summary["figures"]["case"]["dice"]["n"] == len(rows)
        if name == "covid_semiseg":
            assert any("patients unknown" in warning for warning in summary["dataset"]["warnings"])
