"""datalist.json is read, checked and cut into splits that share no patient."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scripts.data.datalist import describe, digest_masks, read_datalist, select_cases
from scripts.data.layouts.build import build_datalist
from scripts.data.splits import SLICE_WARNING, check_patient_disjoint, patients_of
from scripts.errors import UserError


def write(folder: Path, **content) -> Path:
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def by_hand(tmp_path):
    """A data set written by hand, with the least that is required."""
    for name in ("a", "b", "c", "d", "t", "u1", "u2"):
        for kind in ("", "_label"):
            nib.save(nib.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.eye(4)), tmp_path / f"{name}{kind}.nii.gz")

    def case(name, **more):
        return {"image": f"{name}.nii.gz", "label": f"{name}_label.nii.gz", **more}

    return write(
        tmp_path,
        training=[
            case("a", patient="A", fold=0),
            case("b", patient="B", fold=1),
            case("c", patient="B", fold=1),
            case("d"),
        ],
        test=[case("t", patient="T")],
        unlabeled=[
            {"image": "u1.nii.gz", "patient": "B"},
            {"image": "u2.nii.gz", "patient": "T"},
            {"image": "u1_label.nii.gz"},
        ],
    )


def names(cases):
    return [case["name"] for case in cases]


@pytest.mark.parametrize("spelling", ["Mu\u0308ller", "M\u00fcller "])
def test_a_patient_spelled_in_two_ways_is_one(spelling, by_hand):
    content = json.loads((by_hand / "datalist.json").read_text())
    for case, patient in zip(content["training"], ["M\u00fcller", spelling, "B", " "], strict=True):
        case["patient"] = patient
    write(by_hand, **content)
    assert [case["patient"] for case in read_datalist(by_hand)["training"]] == ["M\u00fcller", "M\u00fcller", "B", None]
    with pytest.raises(UserError, match="patients M\u00fcller are in training and in validation"):
        select_cases(by_hand, "training", 0)
    assert names(select_cases(by_hand, "training", exclude_patients=[spelling])) == ["c", "d"]


def test_a_list_by_hand_gets_its_defaults(by_hand):
    datalist = read_datalist(by_hand)
    assert datalist["name"] == by_hand.name
    assert (datalist["split"], datalist["folds"], datalist["warnings"]) == ("patient", 2, [])
    assert datalist["training"][3] == {
        "name": "d",
        "image": "d.nii.gz",
        "label": "d_label.nii.gz",
        "patient": None,
        "fold": None,
    }


@pytest.mark.parametrize(
    ("split", "fold", "expected"),
    [
        ("training", None, ["a", "b", "c", "d"]),
        ("training", 0, ["b", "c", "d"]),
        ("training", 1, ["a", "d"]),
        ("validation", 0, ["a"]),
        ("validation", 1, ["b", "c"]),
        ("training", "d", ["a", "b", "c"]),
        ("validation", "d", ["d"]),
        ("training", ["a", "d"], ["b", "c"]),
        ("validation", ["d", "a"], ["a", "d"]),
        ("unlabeled", ["b", "c"], ["u1_label"]),
        ("test", None, ["t"]),
        ("test", 1, ["t"]),
        ("unlabeled", 0, ["u1", "u1_label"]),
        ("unlabeled", 1, ["u1_label"]),
        ("all", None, ["a", "b", "c", "d", "t", "u1", "u2", "u1_label"]),
    ],
)
def test_splits(by_hand, split, fold, expected):
    cases = select_cases(by_hand, split, fold)
    assert names(cases) == expected
    assert all(Path(case["image"]).is_absolute() and Path(case["image"]).is_file() for case in cases)


def test_patients_can_be_left_out_by_name(by_hand):
    assert names(select_cases(by_hand, "training", exclude_patients={"A", "T"})) == ["b", "c", "d"]
    assert names(select_cases(by_hand, "unlabeled", exclude_patients=["B"])) == ["u1_label"]


def test_a_mask_that_lies_beside_its_header_is_one_of_the_masks(by_hand):
    header = "NDims = 3\nDimSize = 1 1 1\nElementType = MET_UCHAR\nElementDataFile = voxels.raw\n"
    (by_hand / "mask.mhd").write_text(header)
    content = json.loads((by_hand / "datalist.json").read_text())
    content["training"][0]["label"] = "mask.mhd"
    write(by_hand, **content)
    digests = set()
    for voxel in (b"\0", b"\1", b"\0"):
        (by_hand / "voxels.raw").write_bytes(voxel)
        digests.add(digest_masks(read_datalist(by_hand), by_hand))
    assert len(digests) == 2


def test_paths_do_not_depend_on_the_working_folder(by_hand, monkeypatch):
    monkeypatch.chdir(by_hand.parent)
    assert select_cases(by_hand.name, "all") == select_cases(by_hand, "all")


@pytest.mark.parametrize("fold", [2, -1, "0", "t", ["a", "t"], [], 1.0, True, [["a"]]])
def test_a_fold_that_does_not_exist(by_hand, fold):
    with pytest.raises(UserError, match=r"fold .*; expected: 0, 1; or names of training cases"):
        select_cases(by_hand, "training", fold)


def test_cases_named_in_place_of_a_fold_do_not_divide_a_patient(by_hand):
    with pytest.raises(UserError, match="patients B are in training and in validation"):
        select_cases(by_hand, "training", ["b"])
    described = describe(by_hand, ["b", "c"])
    found = {key: described[key] for key in ("fold", "training_cases", "validation_cases", "validation_patients")}
    assert found == {"fold": ["b", "c"], "training_cases": 2, "validation_cases": 2, "validation_patients": ["B"]}


def test_nothing_to_choose_says_what_there_is(by_hand):
    with pytest.raises(UserError, match="validation needs a fold; there are: training 4, test 1, unlabeled 3"):
        select_cases(by_hand, "validation")
    content = json.loads((by_hand / "datalist.json").read_text())
    write(by_hand, **{**content, "test": []})
    with pytest.raises(UserError, match=r"no cases for split test .* training 4, test 0"):
        select_cases(by_hand, "test")
    with pytest.raises(UserError, match="split: 'valid'; expected: training, validation"):
        select_cases(by_hand, "valid")


def test_a_patient_in_two_folds_is_refused_unless_split_by_slice(by_hand):
    content = json.loads((by_hand / "datalist.json").read_text())
    content["training"][2]["fold"] = 0
    write(by_hand, **content)
    with pytest.raises(UserError, match="patients B are in training and in validation"):
        select_cases(by_hand, "training", 0)
    write(by_hand, **content, split="slice", warnings=[SLICE_WARNING])
    assert names(select_cases(by_hand, "validation", 0)) == ["a", "c"]


@pytest.mark.parametrize("split", ["patient", "slice"])
def test_a_patient_in_training_and_test_is_refused(by_hand, split):
    content = json.loads((by_hand / "datalist.json").read_text())
    content["test"][0]["patient"] = "A"
    write(by_hand, **content, split=split)
    with pytest.raises(UserError, match="patients A are in training and in test"):
        select_cases(by_hand, "test")


@pytest.mark.parametrize(("fold", "side"), [(0, "validation"), (None, "test")])
def test_an_image_in_training_and_elsewhere_is_refused(by_hand, fold, side):
    content = json.loads((by_hand / "datalist.json").read_text())
    image = {"validation": "a", "test": "t"}[side]
    (by_hand / "d.nii.gz").unlink()
    (by_hand / "d.nii.gz").symlink_to(f"{image}.nii.gz")
    with pytest.raises(UserError, match=f"images of the training cases d are in {side} too, under other names; expec"):
        select_cases(by_hand, "training", fold)
    content["training"][3]["slices"] = [1]
    content[{"validation": "training", "test": "test"}[side]][0]["slices"] = [0]
    assert "d" in names(select_cases(write(by_hand, **content), "training", fold))
    content["unlabeled"].append({**content["training"].pop(), "slices": [0, 1]})
    del content["unlabeled"][-1]["label"]
    assert "d" not in names(select_cases(write(by_hand, **content), "unlabeled", fold))


def test_every_missing_file_is_listed(by_hand):
    (by_hand / "a.nii.gz").unlink()
    (by_hand / "c_label.nii.gz").unlink()
    (by_hand / "u2.nii.gz").unlink()
    (by_hand / "u2.nii.gz").symlink_to("gone/away.nii.gz")
    with pytest.raises(UserError) as error:
        read_datalist(by_hand)
    lines = str(error.value).split("\n  ")
    assert lines[0].endswith("3 of 13 files are missing:")
    assert lines[1:3] == [str(by_hand / "a.nii.gz"), str(by_hand / "c_label.nii.gz")]
    assert "link to gone/away.nii.gz" in lines[3]


def test_a_name_that_no_file_can_have_is_missing(by_hand):
    content = json.loads((by_hand / "datalist.json").read_text())
    content["test"][0]["image"] = "x" * 3000 + "\\y"
    with pytest.raises(UserError, match="1 of 13 files are missing:") as error:
        read_datalist(write(by_hand, **content))
    assert str(error.value).endswith("x" * 3000 + "/y")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({}, "no cases"),
        ({"training": []}, "no cases"),
        ({"training": {}}, "training is {}; expected: a valid list"),
        ({"validation": [{"image": "a.nii.gz"}]}, "validation is not known; expected: name, layout, test_name"),
        ({"unlabelled": [{"image": "a.nii.gz"}]}, "unlabelled is not known"),
        ({"training": [{"image": "a.nii.gz"}]}, r"training\.0 is .*; expected: a label, or lesion_free true"),
        ({"test": [{"label": "a.nii.gz"}]}, r"test\.0\.image is missing"),
        ({"unlabeled": ["a.nii.gz"]}, r"unlabeled\.0 is 'a.nii.gz'; expected: names and values"),
        ({"unlabeled": [{"image": 3}]}, "image is 3; expected: a valid string"),
        ({"unlabeled": [{"image": "a.nii.gz", "fold": "0"}]}, "fold is '0'; expected: a valid integer"),
        ({"unlabeled": [{"image": "a.nii.gz", "fold": True}]}, "fold is True"),
        ({"unlabeled": [{"image": "a.nii.gz", "patient": 7}]}, "patient is 7; expected: a valid string"),
        (
            {"unlabeled": [{"image": "a.nii.gz", "slices": [1, -2]}]},
            r"slices\.1 is -2; expected: greater than or equal to 0",
        ),
        ({"unlabeled": [{"image": "a.nii.gz", "slices": []}]}, r"slices is \[\]"),
        ({"unlabeled": [{"image": "a.nii.gz", "slices": [1, 0, 1]}]}, "slices is .*; expected: every index once"),
        ({"unlabeled": [{"image": "a.nii.gz", "label_scale": 0}]}, "label_scale is 0; expected: greater than or equal"),
        ({"unlabeled": [{"image": "a.nii.gz", "prior_scale": -1}]}, "prior_scale is -1; expected: greater than or"),
        ({"unlabeled": [{"image": "a.nii.gz"}, {"image": "b/a.nii.gz"}]}, "duplicate case name 'a'"),
        ({"unlabeled": [{"image": "a.nii.gz", "name": "../a"}]}, "case name '../a'"),
        ({"unlabeled": [{"image": "a.nii.gz", "lable": "b.nii.gz"}]}, r"unlabeled\.0\.lable is not known; .* label"),
        ({"unlabeled": [{"image": "a.nii.gz", "intensity": "HU"}]}, r"intensity is 'HU'; expected: auto, hu"),
        (
            {"unlabeled": [{"image": "a.nii.gz"}], "split": "volume"},
            "split is 'volume'; expected: 'patient'",
        ),
        ({"unlabeled": [{"image": "a.nii.gz"}], "warnings": "none"}, "warnings is 'none'"),
    ],
)
def test_a_malformed_list_says_what_is_wrong(tmp_path, content, text):
    (tmp_path / "a.nii.gz").touch()
    with pytest.raises(UserError, match=text):
        read_datalist(write(tmp_path, **content))


def test_what_is_no_json(tmp_path):
    (tmp_path / "datalist.json").write_text('{"training": [')
    with pytest.raises(UserError, match=r"datalist.json: cannot be read as JSON"):
        read_datalist(tmp_path)
    (tmp_path / "datalist.json").write_text("[]")
    with pytest.raises(UserError, match=r"the content is \[\]; expected: names and values"):
        read_datalist(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read_datalist(tmp_path / "absent")


def test_a_known_tree_without_a_list_is_prepared_in_memory(trees):
    root = trees.zenodo()
    built, _ = build_datalist([root])
    datalist = read_datalist(root)
    assert not (root / "datalist.json").exists()
    assert {key: datalist[key] for key in datalist if key != "training"} == {
        key: built[key] for key in built if key != "training"
    }
    assert select_cases(root, "all") == built["training"]
    assert datalist["training"][0]["image"] == "COVID-19-CT-Seg_20cases/coronacases_001.nii.gz"


def test_a_list_in_memory_follows_the_files(trees):
    root = trees.generic(("a", "b", "c", "d", "e"))
    assert len(select_cases(root, "training")) == 5
    trees.generic(("f",))
    assert len(select_cases(root, "training")) == 6
    trees.volume(root / "labels" / "a.nii.gz", (7,))
    with pytest.raises(UserError, match="label values 7"):
        select_cases(root, "training")


@pytest.mark.parametrize("fold", range(5))
def test_no_patient_of_the_public_data_is_on_both_sides(trees, fold):
    root = trees.zenodo()
    training, validation = select_cases(root, "training", fold), select_cases(root, "validation", fold)
    check_patient_disjoint(training, validation)
    assert len(training) + len(validation) == 20
    assert len(validation) == 4


def test_unlabelled_slices_of_validation_patients_are_left_out(trees):
    datalist, _ = build_datalist([trees.zenodo(), trees.semiseg()])
    folder = trees.folder
    (folder / "datalist.json").write_text(json.dumps(datalist))
    validation = select_cases(folder, "validation", 2)
    unlabeled = select_cases(folder, "unlabeled", 2)
    left_out = patients_of(validation)
    assert left_out
    assert not patients_of(unlabeled) & left_out
    assert len(unlabeled) == 20 - sum(case["patient"] in left_out for case in datalist["unlabeled"])


def test_warnings_are_logged_wherever_the_list_is_used(trees, caplog):
    root = trees.semiseg()
    with caplog.at_level(logging.WARNING):
        select_cases(root, "training", 0)
    assert "patients unknown, may overlap: 6 of 6 training cases" in caplog.text
    assert "patients unknown, may overlap: 2 of 2 test cases" in caplog.text


def test_labels_without_any_infection_are_told(trees):
    root = trees.generic()
    for name in "abcde":
        trees.volume(root / "labels" / f"{name}.nii.gz")
    datalist, _ = build_datalist([root])
    assert datalist["warnings"] == ["no label marks any infection"]


def test_describe_names_data_and_validation_patients(trees):
    root = trees.zenodo()
    assert describe(root, 0) == {
        "name": "zenodo",
        "layout": "zenodo_3757476",
        "split": "patient",
        "folds": 5,
        "seed": 0,
        "synthetic": False,
        "warnings": [],
        "fold": 0,
        "training_cases": 16,
        "validation_cases": 4,
        "validation_patients": sorted(patients_of(select_cases(root, "validation", 0))),
    }
    assert describe(root)["training_cases"] == 20
