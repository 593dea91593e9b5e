"""A folder of pairs that a training takes as it is."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from scripts.data.datalist import select_cases
from scripts.errors import UserError
from scripts.files import sha256
from scripts.research.radiograph import radiograph_files
from scripts.research.radiograph_pairs import radiograph_pairs

NAMES = ("coronacases_001", "radiopaedia_29_86490_1", "radiopaedia_29_86491_1")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    affine = np.diag([-1.0, -2, 3, 1])
    affine[:3, 3] = 5
    for number, name in enumerate(NAMES):
        hu, mask = np.full((40, 30, 20), -1000, np.int16), np.zeros((40, 30, 20), np.uint8)
        hu[4:14, 5:15, 12:18], mask[6 + number : 10, 6:9, 14:16] = 0, 1
        for part, array in (("scans", hu), ("masks", mask)):
            (tmp_path / part).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, affine), tmp_path / part / f"{name}.nii.gz")
    return tmp_path / "scans", tmp_path / "masks"


def test_pairs_are_a_data_set_with_folds_by_patient(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = radiograph_pairs(*folders, tmp_path / "out")
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    pngs = [f"{part}/{name}.png" for part in ("depths", "images", "labels") for name in NAMES]
    assert files == sorted([*pngs, "datalist.json", "manifest.json"])
    single = radiograph_files(*(one / f"{NAMES[1]}.nii.gz" for one in folders), tmp_path / "single")
    for part, file in (("images", "radiograph"), ("labels", "lesion"), ("depths", "lesion_tenths_of_mm")):
        assert (out / part / f"{NAMES[1]}.png").read_bytes() == (single / f"{file}.png").read_bytes()
    cases = {case["name"]: case for case in select_cases(out, "all", labelled=True)}
    assert set(cases) == set(NAMES)
    assert cases[NAMES[1]]["fold"] == cases[NAMES[2]]["fold"] != cases[NAMES[0]]["fold"]  # one patient's two scans
    assert set(np.unique(np.asarray(Image.open(cases[NAMES[0]]["label"])))) == {0, 255}
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["method"], manifest["depth_unit"]) == ("attenuation", "0.1 mm")
    row = manifest["pairs"][0]
    assert row["name"] == NAMES[0]
    assert row["mask"] == {"file": f"{NAMES[0]}.nii.gz", "sha256": sha256(folders[1] / f"{NAMES[0]}.nii.gz")}


def test_only_what_it_wrote_is_replaced(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = radiograph_pairs(*folders, tmp_path / "out")
    with pytest.raises(UserError, match="out: exists"):
        radiograph_pairs(*folders, out)
    radiograph_pairs(*folders, out, method="sum", overwrite=True)
    assert json.loads((out / "manifest.json").read_text())["depth_unit"] == "voxels"
    (out / "images" / "mine.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="out: exists"):
        radiograph_pairs(*folders, out, overwrite=True)
    assert (out / "images" / "mine.png").read_bytes() == b"mine"


def test_every_file_without_its_partner_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[0] / f"{NAMES[0]}.nii.gz").unlink()
    (folders[1] / f"{NAMES[1]}.nii.gz").unlink()
    with pytest.raises(UserError, match="2 problems in") as caught:
        radiograph_pairs(*folders, tmp_path / "out")
    assert all(name in str(caught.value) for name in NAMES[:2])
    assert not (tmp_path / "out").exists()


def test_empty_folders_are_refused(tmp_path: Path) -> None:
    for part in ("scans", "masks"):
        (tmp_path / part).mkdir()
    with pytest.raises(UserError, match="scans: no scan; expected: volumes"):
        radiograph_pairs(tmp_path / "scans", tmp_path / "masks", tmp_path / "out")
