"""The phantom data set on disk: layout, geometry, and what it never does to a folder."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from scripts.data.phantom import dataset as phantom_dataset
from scripts.data.phantom.dataset import FOLDERS, IMAGES, INFECTION, LUNGS, plan_case, write_phantom_dataset
from scripts.data.phantom.scan import make_phantom
from scripts.errors import UserError

SMALL = {"size": 48, "slices": 10}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantoms") / "zenodo"
    return out, write_phantom_dataset(out, cases=5, seed=1, **SMALL)


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_layout_is_that_of_zenodo_3757476(dataset):
    out, cases = dataset
    assert (IMAGES, INFECTION, LUNGS) == ("COVID-19-CT-Seg_20cases", "Infection_Mask", "Lung_Mask")
    names = [f"phantom_{number:03d}.nii.gz" for number in range(1, 6)]
    assert sorted(p.name for p in out.iterdir()) == sorted([*FOLDERS, "phantom.json"])
    for folder in FOLDERS:
        assert sorted(p.name for p in (out / folder).iterdir()) == names
    record = json.loads((out / "phantom.json").read_text())
    assert record["synthetic"] is True
    assert [case["name"] for case in record["cases"]] == [case.name for case in cases]


def test_files_of_a_case_share_one_valid_geometry(dataset):
    out, cases = dataset
    for case in cases:
        files = [nib.load(out / folder / f"{case.name}.nii.gz") for folder in FOLDERS]
        for file, dtype in zip(files, (np.int16, np.uint8, np.uint8), strict=True):
            assert file.get_data_dtype() == dtype
            np.testing.assert_array_equal(file.affine, files[0].affine)
            assert file.shape == files[0].shape
            assert (int(file.header["qform_code"]), int(file.header["sform_code"])) == (1, 1)
            np.testing.assert_allclose(file.get_qform(), file.get_sform(), atol=1e-3)
            assert file.header.get_xyzt_units()[0] == "mm"
            np.testing.assert_allclose(file.header.get_zooms(), case.spacing, rtol=1e-5)
        assert "".join(nib.aff2axcodes(files[0].affine)) == case.orientation


def test_stored_arrays_are_the_phantom_in_every_orientation(dataset):
    out, cases = dataset
    for case in cases:
        phantom = make_phantom(case.seed, case.shape, case.spacing, case.infected)
        for folder, array in ((IMAGES, phantom.image), (INFECTION, phantom.infection), (LUNGS, phantom.lungs)):
            ras = nib.as_closest_canonical(nib.load(out / folder / f"{case.name}.nii.gz"))
            np.testing.assert_array_equal(np.asarray(ras.dataobj)[::-1, ::-1], array)


def test_variety(dataset):
    _, cases = dataset
    assert {case.orientation for case in cases} == {"LPS", "RAS", "LAS", "LPI"}
    assert [case.infected for case in cases] == [True, True, True, False, True]
    assert [case.tilt > 0 for case in cases] == [False, False, True, False, False]
    assert len({case.shape for case in cases}) >= 4
    assert len({case.spacing for case in cases}) == 5
    assert cases[4].shape[0] != cases[4].shape[1]
    assert len({case.seed for case in cases}) == 5


def test_oblique_case_keeps_right_angles(dataset):
    out, cases = dataset
    affine = nib.load(out / IMAGES / "phantom_003.nii.gz").affine
    axes = affine[:3, :3] / cases[2].spacing
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-5)
    assert np.rad2deg(np.arccos(abs(axes[2, 2]))) == pytest.approx(cases[2].tilt, abs=0.01)


def test_default_sizes_are_those_of_real_scans():
    for number in range(1, 21):
        case = plan_case(number)
        assert 330 < case.shape[0] * case.spacing[0] < 390  # field of view, mm
        assert 240 < case.shape[2] * case.spacing[2] < 275
        assert 5 < case.spacing[2] < 11


def test_same_seed_same_bytes_whatever_the_number_of_cases(dataset, tmp_path):
    out, _ = dataset
    write_phantom_dataset(tmp_path / "again", cases=2, seed=1, **SMALL)
    written, again = content(out), content(tmp_path / "again")
    del again["phantom.json"]
    assert len(again) == 6
    assert all(written[name] == data for name, data in again.items())


def test_a_used_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for overwrite, found in ((False, "not empty"), (True, r"no readable phantom\.json")):
        with pytest.raises(UserError, match=found):
            write_phantom_dataset(tmp_path, cases=1, overwrite=overwrite, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match="a file; expected: a folder"):
        write_phantom_dataset(tmp_path / "notes.txt", cases=1, **SMALL)


def test_overwrite_replaces_its_own_files_only(tmp_path):
    out = tmp_path / "set"
    out.mkdir()  # an empty folder is fine
    write_phantom_dataset(out, cases=2, seed=0, **SMALL)
    (out / "datalist.json").write_text("mine")
    (out / IMAGES / "mine.nii.gz").write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        write_phantom_dataset(out, cases=1, seed=5, **SMALL)
    write_phantom_dataset(out, cases=1, seed=5, overwrite=True, **SMALL)
    fresh = tmp_path / "fresh"
    write_phantom_dataset(fresh, cases=1, seed=5, **SMALL)
    mine = {"datalist.json": b"mine", f"{IMAGES}/mine.nii.gz": b"mine"}
    assert content(out) == content(fresh) | mine
    (out / INFECTION / "phantom_002.nii.gz").write_text("mine, too")
    with pytest.raises(UserError, match="phantom_002"):
        write_phantom_dataset(out, cases=2, overwrite=True, **SMALL)
    assert (out / INFECTION / "phantom_002.nii.gz").read_text() == "mine, too"


def test_a_record_cannot_point_outside_the_folder(tmp_path):
    out = tmp_path / "set"
    write_phantom_dataset(out, cases=1, **SMALL)
    victim = tmp_path / "victim.nii.gz"
    victim.write_text("mine")
    (out / "phantom.json").write_text(json.dumps({"cases": [{"name": "../../victim"}, {"name": "phantom_001"}]}))
    write_phantom_dataset(out, cases=1, overwrite=True, **SMALL)
    assert victim.read_text() == "mine"


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def second_fails(seed, *arguments):
        if seed[1] == 2:
            raise KeyboardInterrupt
        return make_phantom(seed, *arguments)

    monkeypatch.setattr(phantom_dataset, "make_phantom", second_fails)
    with pytest.raises(KeyboardInterrupt):
        write_phantom_dataset(tmp_path / "set", cases=2, **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"), [("cases", 0), ("cases", "ten"), ("cases", True), ("size", 20), ("slices", 3), ("seed", -1)]
)
def test_numbers_out_of_range_are_named(tmp_path, name, value):
    with pytest.raises(UserError, match=f"--{name} is {value!r}"):
        write_phantom_dataset(tmp_path / "set", **{name: value})
    assert list(tmp_path.iterdir()) == []
