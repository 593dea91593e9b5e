"""`segment` on real scans as they are (docs/data.md); the weights are random,
files and lungs do not mind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


@pytest.fixture(scope="module")
def results(
    tmp_path_factory: pytest.TempPathFactory,
    lung_ct_data: Path,
    bundle_root: Path,
    make_checkpoint: Callable[..., Path],
) -> Path:
    """All of them in one run."""
    folder = tmp_path_factory.mktemp("real")
    weights = make_checkpoint(folder / "model.pt")
    inputs = [
        lung_ct_data / "covid_ct_md" / "P001",
        lung_ct_data / "covid_ct_md" / "normal001_ct_256.nii.gz",
        lung_ct_data / "totalsegmentator_chest",
        lung_ct_data / "lungmask_dicom",
        next((lung_ct_data / "covid_semiseg").rglob("Doctor-label/Imgs/*.jpg")),
    ]
    words = [sys.executable, "-m", "scripts", "segment", *inputs, folder / "out", "--weights", weights]
    words += ["--device", "cpu", "--threshold", "0.53"]
    done = subprocess.run([str(word) for word in words], cwd=bundle_root, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "out"


def report_of(results: Path, name: str) -> dict[str, dict[str, dict[str, float]]]:
    report: dict[str, dict[str, dict[str, float]]] = json.loads((results / name / "report.json").read_text())
    return report


@pytest.mark.parametrize("name", ["P001", "normal001_ct_256"])
def test_lungs_have_the_volume_of_an_adults(name: str, results: Path) -> None:
    lungs = report_of(results, name)["measures"]["lungs"]
    right, left = lungs["right"]["lung_ml"], lungs["left"]["lung_ml"]
    assert 2500 < right + left < 8000
    assert 0.45 < right / (right + left) < 0.62
    assert lungs["total"]["lung_ml"] == pytest.approx(right + left, rel=1e-4)


def test_the_dicom_seg_lies_on_the_slices_that_it_names(results: Path, lung_ct_data: Path) -> None:
    mask = nib.load(results / "P001" / "infection.nii.gz")
    seg = pydicom.dcmread(results / "P001" / "infection_seg.dcm")
    sources = {}
    for path in (lung_ct_data / "covid_ct_md" / "P001").glob("*.dcm"):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        sources[header.SOPInstanceUID] = [float(value) for value in header.ImagePositionPatient]
    inverse = np.linalg.inv(mask.affine)
    voxels, frames = np.asarray(mask.dataobj), seg.pixel_array
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        x, y, z = sources[source]
        k = inverse @ [-x, -y, z, 1]  # DICOM is LPS, NIfTI RAS
        np.testing.assert_allclose(k[:2], 0, atol=1e-3)
        np.testing.assert_array_equal(frame, voxels[..., round(k[2])].T)
    assert len(frames) == int(voxels.any(axis=(0, 1)).sum()) > 0


def test_what_is_odd_is_said(results: Path) -> None:
    two = report_of(results, "lungmask_dicom")
    codes = {note["code"] for note in two["notes"]}  # type: ignore[index]
    assert "few_slices" in codes
    assert two["measures"]["lungs"]["reason"]
    (jpg,) = [path.parent for path in results.glob("*/infection.png")]
    picture = json.loads((jpg / "report.json").read_text())
    assert "infection_ml" not in picture["measures"]["infection"]
