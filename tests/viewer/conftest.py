"""Results of `segment` for three small scans: NIfTI in an unusual orientation, DICOM, a picture."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from scripts.data.phantom.scan import make_phantom
from scripts.inference.segmenter import Segmenter
from scripts.pipeline.batch import record, segment_in_turn
from scripts.pipeline.case import CaseSegmenter
from scripts.pipeline.inputs import expand_inputs
from scripts.pipeline.job import describe
from tests.conftest import turned_image, write_random_checkpoint
from tests.scan_fixtures import make_slice, save

SPACING = (5.0, 4.5, 14.0)


@dataclass(frozen=True)
class Made:
    """Scans and where their results are."""

    scans: Path
    output: Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The three scans and their results, which no test changes."""
    folder = tmp_path_factory.mktemp("viewer")
    weights = write_random_checkpoint(folder / "weights" / "model.pt")
    model = CaseSegmenter(Segmenter(weights, device="cpu", threshold=0.58))
    hu = make_phantom(1, shape=(68, 62, 20), spacing=SPACING).image
    scans, output = folder / "in", folder / "out"
    scans.mkdir()
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = 150.5, 120.25, -310.0
    nib.save(turned_image(nib.Nifti1Image(hu, affine), "SRA"), scans / "chest.nii.gz")
    for k in range(hu.shape[2]):
        ds = make_slice((hu[..., k].T + 1024).astype(np.uint16), (-170, -140, SPACING[2] * k), k)
        ds.PixelSpacing, ds.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
        save(ds, scans / "study" / f"{k * 7 % hu.shape[2]:03d}")
    grey = np.clip((hu[..., 10].T + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(scans / "slice.png")
    cases = expand_inputs([scans / name for name in ("chest.nii.gz", "study", "slice.png")], output)
    done = record(segment_in_turn(model, cases, output), describe(model), cases, output)
    assert [case["status"] for case in done["cases"]] == ["done"] * 3
    return Made(scans, output)


@pytest.fixture
def own(made: Made, tmp_path: Path) -> Made:
    """A copy of them to change, as if it had been made where it lies."""
    copy = Made(tmp_path / "in", tmp_path / "out")
    shutil.copytree(made.scans, copy.scans)
    shutil.copytree(made.output, copy.output)
    manifest = copy.output / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(made.scans), str(copy.scans)))
    return copy
