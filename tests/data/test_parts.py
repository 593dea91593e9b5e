"""Parts of stated sizes: nothing is lost or twice, patients stay together, the seed decides."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from scripts.commands.prepare import prepare
from scripts.data.datalist import describe, read_datalist, select_cases
from scripts.data.layouts.base import new_case
from scripts.data.parts import Sizes, draw_parts, read_split
from scripts.data.splits import SLICE_WARNING, patients_of
from scripts.errors import UserError


def scans(trees, patients, each=1):
    return [
        new_case(f"p{patient:02d}_{scan}", trees.folder / f"p{patient}_{scan}.nii.gz", f"p{patient:02d}")
        for patient in range(patients)
        for scan in range(each)
    ]


def test_fourteen_two_four_of_twenty_patients(trees):
    cases = scans(trees, 20)
    cases[3]["patient"], cases[11]["patient"] = "p02", "p10"  # two scans of one patient, twice
    training, test = draw_parts(cases, Sizes(14, 2, 4), 0, "patient")
    parts = [[case for case in training if case["fold"] == fold] for fold in (None, 0)]
    assert [len(part) for part in (*parts, test)] == [14, 2, 4]
    assert Counter(case["name"] for case in training + test) == Counter(case["name"] for case in cases)
    assert not patients_of(test) & patients_of(training)
    assert not patients_of(parts[0]) & patients_of(parts[1])
    assert draw_parts(cases[::-1], Sizes(14, 2, 4), 0, "patient") == (training, test)
    assert draw_parts(cases, Sizes(14, 2, 4), 1, "patient")[1] != test
    assert all(case["fold"] is None and "drawn" not in case for case in cases)  # the given ones stay


@pytest.mark.parametrize("seed", range(8))
def test_patients_with_several_scans_go_where_they_fit(trees, seed):
    cases = scans(trees, 3, each=2) + scans(trees, 9)[6:]
    training, test = draw_parts(cases, Sizes(None, None, 3), seed, "patient")
    assert (len(test), len(training)) == (3, 6)
    assert not patients_of(test) & patients_of(training)
    with pytest.raises(UserError, match="no patient has 1 scans left"):
        draw_parts(scans(trees, 3, each=2), Sizes(None, None, 3), seed, "patient")


def test_slices_are_drawn_over_all_volumes(trees):
    cases = [new_case(name, trees.ct(trees.folder / f"{name}.nii.gz", shape=(4, 4, 40)), name) for name in "abc"]
    cases.append(new_case("picture", trees.picture(trees.folder / "picture.png"), None))
    training, test = draw_parts(cases, Sizes(None, 20, 30), 3, "slice")
    found = Counter()
    for case in training + test:
        found.update((case["image"], index) for index in case.get("slices", [0]))
    assert len(found) == 121
    assert set(found.values()) == {1}
    sizes = {part: 0 for part in ("test", "fold0", "train")}
    for case in training + test:
        sizes[case["name"].rpartition("_")[2] if "slices" in case else "train"] += len(case.get("slices", [0]))
    pictures = [case for case in training + test if "slices" not in case]
    assert len(pictures) == 1
    assert sizes["test"] in (30, 29)  # the picture may be one of them
    assert sum(sizes.values()) == 121
    assert {case["fold"] for case in training} == {0, None}
    assert {case["patient"] for case in test} >= {"a", "b", "c"}


def test_without_a_validation_part_the_rest_keeps_its_names_for_the_folds(trees):
    cases = [new_case("a", trees.ct(trees.folder / "a.nii.gz", shape=(4, 4, 10)), "a")]
    training, test = draw_parts(cases, Sizes(None, None, 4), 0, "slice")
    assert [(case["name"], len(case["slices"])) for case in (*training, *test)] == [("a", 6), ("a_test", 4)]


@pytest.mark.parametrize(
    ("split", "options", "found"),
    [
        ("patient", {}, ("patient", Sizes())),
        ("slice", {"test": 449}, ("slice", Sizes(None, None, 449))),
        ("patient", {"validation": 2, "test": 4}, ("patient", Sizes(None, 2, 4))),
        ("14/2/4", {}, ("patient", Sizes(14, 2, 4))),
        ("14/2/0", {}, ("patient", Sizes(14, 2, 0))),
    ],
)
def test_a_split_is_read(split, options, found):
    assert read_split(split, **options) == found


@pytest.mark.parametrize(
    ("split", "options", "text"),
    [
        ("volume", {}, "--split volume; expected: patient, slice, or numbers"),
        ("14/2", {}, "--split 14/2; expected"),
        ("14/2/4", {"test": 4}, "expected: one of both"),
        ("slice", {"test": -1}, "1 or more"),
        ("slice", {"validation": 0}, "1 or more"),
        ("slice", {"validation": -3}, "1 or more"),
        ("0/2/4", {}, "1 or more"),
    ],
)
def test_a_split_that_makes_no_sense(split, options, text):
    with pytest.raises(UserError, match=text):
        read_split(split, **options)


@pytest.mark.parametrize("sizes", [Sizes(14, 2, 4), Sizes(2, 2, 4), Sizes(None, 3, 4), Sizes(None, None, 7)])
def test_parts_that_do_not_add_up(trees, sizes):
    with pytest.raises(UserError, match=r"7 scans, and .*; expected: parts that add up to 7"):
        draw_parts(scans(trees, 7), sizes, 0, "patient")


def test_prepare_by_numbers_of_patients(trees, capsys):
    out = trees.folder / "out"
    prepare([trees.zenodo()], out, split="14/2/4", seed=7)  # 20 scans of 18 patients
    datalist = read_datalist(out)
    assert (datalist["split"], datalist["folds"], datalist["seed"]) == ("patient", 1, 7)
    parts = [select_cases(out, part, 0) for part in ("training", "validation", "test")]
    assert list(map(len, parts)) == [14, 2, 4]
    assert len(set.union(*map(patients_of, parts))) == sum(len(patients_of(part)) for part in parts) == 18
    assert "split by patient, seed 7" in capsys.readouterr().out
    with pytest.raises(UserError, match="20 scans"):
        prepare([trees.folder / "zenodo"], trees.folder / "other", split="14/2/3")


def test_prepare_by_number_of_slices_warns_and_can_be_read(trees):
    out = trees.folder / "out"
    prepare([trees.zenodo(), trees.medseg_part1()], out, split="slice", test=30, validation=10)
    datalist = read_datalist(out)
    assert SLICE_WARNING in datalist["warnings"]
    slices = {
        part: sum(len(case["slices"]) for case in select_cases(out, part, 0))
        for part in ("training", "validation", "test")
    }
    assert slices == {"training": 20 * 4 + 20 - 40, "validation": 10, "test": 30}
    shared = patients_of(datalist["test"]) & patients_of(datalist["training"])
    assert shared  # which a split by patient refuses
    (out / "datalist.json").write_text(json.dumps({**datalist, "split": "patient"}))
    with pytest.raises(UserError, match="are in training and in test"):
        select_cases(out, "test")
    prepare([trees.folder / "zenodo"], trees.folder / "folds", split="slice", test=30, folds=3)
    left = [
        sum(len(case["slices"]) for case in select_cases(trees.folder / "folds", "validation", k)) for k in range(3)
    ]
    assert sum(left) == 50


def test_test_data_replaces_test_cases_and_drops_what_overlaps(trees):
    out = trees.folder / "out"
    sources = [trees.zenodo(), trees.medseg_part1(), trees.medseg_part2(), trees.semiseg()]
    prepare(sources, out, folds=2, test_data=[trees.mosmed()])
    datalist = read_datalist(out)
    assert [case["name"] for case in datalist["test"]] == ["study_0256", "study_0257", "study_0258"]
    assert (datalist["test_name"], describe(out)["test_name"]) == ("COVID19_1110", "COVID19_1110")
    assert len({case["image"] for case in datalist["training"]}) == 20 + 1 + 9 + 6
    assert len(datalist["unlabeled"]) == 20 + 1  # nothing of the test data is trained on
    assert any("2 test cases of" in warning for warning in datalist["warnings"])


def test_slices_of_volumes_under_other_names_are_left_out(trees):
    """Unlabelled slices of COVID-SemiSeg are of radiopaedia volumes; nine are MedSeg part 2."""
    semiseg = trees.semiseg(scans=["coronacases_001", "radiopaedia_10_85902_1"])
    prepare([semiseg], trees.folder / "a", folds=2, test_data=[trees.medseg_part2()])
    kept = {case["patient"] for case in read_datalist(trees.folder / "a")["unlabeled"]}
    assert kept == {"coronacases_001"}
    prepare([semiseg, trees.folder / "medseg2"], trees.folder / "b", folds=3)
    for fold in range(3):
        volumes = [case["name"] for case in select_cases(trees.folder / "b", "validation", fold)]
        assert any(name.startswith("medseg_rp_") for name in volumes)
        assert {case["patient"] for case in select_cases(trees.folder / "b", "unlabeled", fold)} == kept
    assert len({case["patient"] for case in select_cases(trees.folder / "b", "unlabeled")}) == 2


def test_scans_under_other_names_are_left_out(trees):
    sources = [trees.zenodo(), trees.medseg_part1(), trees.medseg_part2(), trees.semiseg(scans=["coronacases_001"])]
    out = trees.folder / "chest_ct"
    prepare(sources, out, folds=2, test_data=[trees.kaggle()])  # COVID-ChestCT is a copy of Zenodo 3757476
    datalist = read_datalist(out)
    assert len(datalist["test"]) == 20
    images = {case["name"].rpartition("_fold")[0] or case["name"] for case in datalist["training"]}
    assert images == {"medseg_tr_im", *(f"semiseg_train_{number}" for number in range(6))}
    assert [case["name"] for case in datalist["unlabeled"]] == ["medseg_val_im"]
    text = "29 training cases left out, which are or may be in the test data: coronacases_001, "
    assert any(warning.startswith(text) for warning in datalist["warnings"])
    prepare([trees.folder / "medseg1", trees.folder / "zenodo"], trees.folder / "b", folds=2,
            test_data=[trees.folder / "semiseg"])  # fmt: skip
    assert len(read_datalist(trees.folder / "b")["training"]) == 20  # MedSeg part 1 holds slices of COVID-SemiSeg
    with pytest.raises(UserError, match="expected: one of both"):
        prepare([trees.folder / "zenodo"], trees.folder / "c", test=3, test_data=[trees.folder / "medseg1"])
