"""Data of one's own: lists from Windows, labels near their codes, other formats, one case,
folds of other data."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from scripts.commands.prepare import prepare
from scripts.data.datalist import describe, read_datalist, select_cases
from scripts.data.slices import SliceDataset
from scripts.errors import UserError
from scripts.transforms.labels import InfectionMaskd
from tests.chains import chain, network_grid

SHAPE = (20, 18, 3)
AFFINE = np.diag([-5.0, -5.0, 5.0, 1.0])


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 100, SHAPE).astype(np.int16)


def label() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:9, 5:9, 1] = 1
    return mask


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.lower().endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(array, AFFINE), path)
        return
    volume = sitk.GetImageFromArray(array.T)
    volume.SetSpacing((5.0, 5.0, 5.0))
    sitk.WriteImage(volume, str(path))


def own_data(folder: Path, *names: str) -> Path:
    for name in names:
        save(folder / "images" / name, image())
        save(folder / "labels" / name, label())
    return folder


def test_formats_are_mixed_and_served_alike(tmp_path):
    source = own_data(tmp_path / "own", "a.nii.gz", "b.NII.GZ", "d.nrrd", "e.mha")
    prepare([source], tmp_path / "out", folds=2)
    cases = select_cases(tmp_path / "out")
    assert [case["name"] for case in cases] == ["a", "b", "d", "e"]
    slices = SliceDataset(cases, network_grid(size=32), progress=False)
    first, *others = (torch.stack([slices[3 * k + z]["image"] for z in range(3)]) for k in range(4))
    assert all(torch.equal(first, other) for other in others)
    masks = [torch.stack([slices[3 * k + z]["label"] for z in range(3)]) for k in range(4)]
    assert masks[0].any()
    assert all(torch.equal(masks[0], mask) for mask in masks)


def test_what_prepare_leaves_out_is_told(tmp_path, capsys):
    source = own_data(tmp_path / "own", "a.nii.gz", "b.nii.gz")
    (source / "images" / "._a.nii.gz").write_bytes(b"macOS")
    prepare([source], tmp_path / "out", folds=2)
    assert "1 hidden files were passed over (._a.nii.gz)" in capsys.readouterr().out
    save(source / "images" / "c.mhd", image())
    (source / "labels" / "d.nii.gz").symlink_to("nowhere.nii.gz")
    with pytest.raises(UserError) as caught:
        prepare([source], tmp_path / "other", folds=2)
    assert "c.mhd: a format that is not read here" in str(caught.value)
    assert "d.nii.gz: a link to nowhere.nii.gz, which is not there" in str(caught.value)


def test_a_scan_under_two_names_is_told(tmp_path, capsys):
    source = own_data(tmp_path / "own", "a.nii.gz", "copy of a.nii.gz", "c.nii.gz")
    save(source / "images" / "c.nii.gz", image()[::-1])
    prepare([source], tmp_path / "out", folds=2)
    told = "1 image under several names, perhaps in training and in validation: copy of a (a)"
    assert f"warning: {told}\n" in capsys.readouterr().out
    assert read_datalist(tmp_path / "out")["warnings"] == [told]


@pytest.mark.parametrize("spelling", ["Mu\u0308ller", "M\u00fcller"])
def test_patients_of_files_are_spelled_as_those_of_a_list(spelling, tmp_path):
    source = own_data(tmp_path / "own", "Mu\u0308ller.nii.gz", *(f"{name}.nii.gz" for name in "abcd"))  # as macOS
    assert [case["name"] for case in select_cases(source, exclude_patients=[spelling])] == [*"abcd"]


def test_folders_beside_the_images_are_told(tmp_path, capsys):
    source = own_data(tmp_path / "own", "a.nii.gz", "b.nii.gz")
    for kind in ("images", "labels"):
        save(source / kind / "more" / "c.nii.gz", image())
    (source / "images" / "notes").mkdir()
    prepare([source], tmp_path / "out", folds=2)
    assert "images/: 1 folders were passed over (more)" in capsys.readouterr().out


def test_an_empty_data_set_is_an_error(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / "own" / name).mkdir(parents=True)
    (tmp_path / "own" / "images" / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"1 files in images/ and labels/ and no image; expected: \.nii\.gz"):
        prepare([tmp_path / "own"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_case_has_no_fold_and_a_way(tmp_path, capsys):
    prepare([own_data(tmp_path / "own", "a.nii.gz")], tmp_path / "out")
    assert "train with --fold null" in capsys.readouterr().out
    assert [case["fold"] for case in read_datalist(tmp_path / "out")["training"]] == [None]
    assert [case["name"] for case in select_cases(tmp_path / "out", "training", None)] == ["a"]
    with pytest.raises(UserError, match="null to train on all"):
        select_cases(tmp_path / "out", "training", 0)


@pytest.mark.parametrize("separator", ["/", "\\"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_list_from_windows(tmp_path, separator, mark):
    folder = own_data(tmp_path, "a.nii.gz", "b.nii.gz")
    cases = [{key: f"{key}s{separator}{name}.nii.gz" for key in ("image", "label")} for name in "ab"]
    text = mark + json.dumps({"training": cases}, indent=1)
    (folder / "datalist.json").write_bytes(text.replace("\n", "\r\n").encode("utf-8"))
    found = select_cases(folder)
    assert [case["name"] for case in found] == ["a", "b"]
    assert all(Path(case["label"]).is_file() for case in found)


def test_a_list_that_holds_a_key_twice_is_refused(tmp_path):
    folder = own_data(tmp_path, "a.nii.gz", "b.nii.gz")
    lists = [json.dumps([{key: f"{key}s/{name}.nii.gz" for key in ("image", "label")}]) for name in "ab"]
    (folder / "datalist.json").write_text(f'{{"training": {lists[0]}, "training": {lists[1]}}}')
    with pytest.raises(UserError, match=r"datalist\.json: .*the key 'training' is there more than once\)") as caught:
        select_cases(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "null", "None"])
def test_fold_null_trains_on_all(make_dataset, text):
    folder, fold = make_dataset(cases=3), chain("given#fold", fold=text)
    assert len(select_cases(folder, "training", fold)) == 3
    assert describe(folder, fold)["fold"] is None
    assert select_cases(folder, "validation", fold, may_be_empty=True) == []
    with pytest.raises(UserError, match="validation needs a fold"):
        select_cases(folder, "validation", fold)


@pytest.mark.parametrize("split", ["all", "test"])
def test_a_fold_of_other_data_means_nothing_where_none_is_asked_for(make_dataset, split):
    folder = make_dataset(cases=3)
    content = json.loads((folder / "datalist.json").read_text())
    content["test"].append({**content["training"].pop(), "fold": None})
    (folder / "datalist.json").write_text(json.dumps(content))
    assert len(select_cases(folder, split, ["coronacases_007"], labelled=True)) == (3 if split == "all" else 1)
    assert describe(folder, ["coronacases_007"], split)["fold"] is None
    assert describe(folder, 1, split)["fold"] == 1
    with pytest.raises(UserError, match="--split all to evaluate weights on other data"):
        select_cases(folder, "validation", ["coronacases_007"])


@pytest.mark.parametrize("kind", ["rounded", "slope", "trailing", "dust"])
def test_labels_near_their_codes_count_as_them(tmp_path, kind):
    source = own_data(tmp_path / "own", "a.nii.gz", "b.nii.gz")
    mask = label().astype(np.float32)
    stored = nib.Nifti1Image(mask * np.float32(0.9999999), AFFINE)
    if kind == "slope":
        stored = nib.Nifti1Image(label() * np.uint8(255), AFFINE)
        stored.header.set_slope_inter(1 / 255, 0)
    elif kind == "trailing":
        stored = nib.Nifti1Image(label()[..., None], AFFINE)
    elif kind == "dust":
        stored = nib.Nifti1Image(mask + np.float32(1e-6), AFFINE)
    nib.save(stored, source / "labels" / "a.nii.gz")
    prepare([source], tmp_path / "out", folds=2)
    case = select_cases(tmp_path / "out")[0]
    found = network_grid(size=32)(dict(case))["label"]
    clean = network_grid(size=32)({**case, "label": str(source / "labels" / "b.nii.gz")})["label"]
    assert torch.equal(torch.as_tensor(found), torch.as_tensor(clean))
    coded = InfectionMaskd("label")({"label": torch.tensor([0.0, 0.9999, 1.5, 2.0]), "label_codes": [1]})
    assert coded["label"].tolist() == [0, 1, 0, 0]


def test_a_label_that_is_none_is_printed_in_full(tmp_path):
    source = own_data(tmp_path / "own", "a.nii.gz", "b.nii.gz")
    save(source / "labels" / "a.nii.gz", label() * np.float32(1.0051))
    with pytest.raises(UserError, match=r"label values 1\.0051"):
        prepare([source], tmp_path / "out", folds=2)
