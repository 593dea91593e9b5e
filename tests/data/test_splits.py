"""Folds keep patients together, are balanced, and depend on names and seed alone."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from scripts.data.layouts.base import new_case
from scripts.data.splits import SLICE_WARNING, assign_folds, check_patient_disjoint
from scripts.errors import UserError


def volumes(trees, scans_of_patients):
    """Cases: patient p gets as many scans as the list says."""
    return [
        new_case(f"p{patient}_{scan}", trees.folder / f"p{patient}_{scan}.nii.gz", f"p{patient}")
        for patient, scans in enumerate(scans_of_patients)
        for scan in range(scans)
    ]


def pictures(trees, count, patient=None):
    return [new_case(f"slice{number}", trees.folder / f"slice{number}.png", patient) for number in range(count)]


def folds_by_patient(cases):
    folds = {}
    for case in cases:
        folds.setdefault(case["patient"], set()).add(case["fold"])
    return folds


@pytest.mark.parametrize("seed", range(5))
def test_a_patient_is_in_one_fold_and_folds_are_balanced(trees, seed):
    cases = volumes(trees, [5, 3, 3, 2, 2, 2, 1, 1, 1])
    result, warnings = assign_folds(cases, 4, seed)
    assert all(len(folds) == 1 for folds in folds_by_patient(result).values())
    assert Counter(case["fold"] for case in result) == {0: 5, 1: 5, 2: 5, 3: 5}
    assert warnings == []
    assert [{**case, "fold": None} for case in result] == sorted(cases, key=lambda case: case["name"])


def test_the_order_of_the_cases_does_not_matter_but_the_seed_does(trees):
    cases = volumes(trees, [1] * 12)
    first, _ = assign_folds(cases, 3, seed=1)
    shuffled = random.Random(0).sample(cases, len(cases))
    assert assign_folds(shuffled, 3, seed=1)[0] == first
    assert assign_folds(cases, 3, seed=2)[0] != first
    assert all(case["fold"] is None for case in cases)  # the given cases stay as they are


def test_volumes_and_pictures_are_balanced_each_by_themselves(trees):
    result, _ = assign_folds(volumes(trees, [2, 1, 1, 1, 1]) + pictures(trees, 30), 3, seed=0)
    assert Counter(case["fold"] for case in result if case["patient"]) == {0: 2, 1: 2, 2: 2}
    assert Counter(case["fold"] for case in result if not case["patient"]) == {0: 10, 1: 10, 2: 10}


def test_unknown_patients_are_told(trees):
    result, warnings = assign_folds(volumes(trees, [1, 1]) + pictures(trees, 6), 2, seed=0)
    assert len({case["fold"] for case in result}) == 2
    assert warnings == ["patients unknown, may overlap: 6 of 8 training cases"]


def test_a_patient_named_like_an_unknown_case_is_not_mixed_up(trees):
    cases = [new_case("a", trees.folder / "a.png", None), new_case("b", trees.folder / "b.png", "a")]
    result, _ = assign_folds(cases, 2, seed=0)
    assert {case["fold"] for case in result} == {0, 1}


@pytest.mark.parametrize("split", ["patient", "slice"])
def test_a_stack_of_independent_slices_is_divided(trees, split):
    stack = new_case("stack", trees.folder / "stack.nii.gz", None)
    stack["slices"] = [3, 5, 7, 11, 13, 17, 19]
    result, _ = assign_folds([stack], 3, seed=0, split=split)
    assert sorted(index for case in result for index in case["slices"]) == stack["slices"]
    assert sorted(len(case["slices"]) for case in result) == [2, 2, 3]
    assert [case["name"] for case in result] == ["stack_fold0", "stack_fold1", "stack_fold2"]


def test_split_by_slice_spreads_each_volume_and_warns(trees):
    cases = []
    for name in ("a", "b"):
        cases.append(new_case(name, trees.ct(trees.folder / f"{name}.nii.gz", shape=(4, 4, 23)), name))
    result, warnings = assign_folds(cases, 5, seed=3, split="slice")
    for name in ("a", "b"):
        parts = [case["slices"] for case in result if case["patient"] == name]
        assert sorted(index for part in parts for index in part) == list(range(23))
        assert sorted(map(len, parts)) == [4, 4, 5, 5, 5]
        assert any(part != list(range(part[0], part[0] + len(part))) for part in parts)
    assert [case["slices"] for case in result[:5]] != [case["slices"] for case in result[5:]]
    assert warnings == [SLICE_WARNING]
    assert assign_folds(cases[::-1], 5, seed=3, split="slice")[0] == result


def test_split_by_slice_of_pictures_has_nothing_to_divide(trees):
    result, warnings = assign_folds(pictures(trees, 10), 5, seed=0, split="slice")
    assert Counter(case["fold"] for case in result) == dict.fromkeys(range(5), 2)
    assert all("slices" not in case for case in result)
    assert SLICE_WARNING not in warnings


def test_more_folds_than_patients(trees):
    with pytest.raises(UserError, match="5 folds need as many patients, found 3"):
        assign_folds(volumes(trees, [4, 4, 4]), 5, seed=0)
    with pytest.raises(UserError, match="5 folds need as many slices, found 4"):
        assign_folds([new_case("a", trees.ct(trees.folder / "a.nii.gz"), "a")], 5, seed=0, split="slice")


@pytest.mark.parametrize("patients", [2, 4])
def test_the_number_of_folds_that_is_proposed_works(trees, patients):
    cases = volumes(trees, [1] * patients)
    with pytest.raises(UserError) as refused:
        assign_folds(cases, 5, seed=0)
    proposed = int(re.search(r"expected: --folds (\d+)", str(refused.value))[1])
    result, _ = assign_folds(cases, proposed, seed=0)
    assert Counter(case["fold"] for case in result) == dict.fromkeys(range(patients), 1)


def test_no_cases_no_folds():
    assert assign_folds([], 5, seed=0) == ([], [])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"folds": 1}, "folds: 1"),
        ({"folds": "5"}, "folds: '5'"),
        ({"folds": True}, "folds: True"),
        ({"seed": -1}, "seed: -1"),
        ({"seed": 0.5}, "seed: 0.5"),
        ({"split": "volume"}, "split: 'volume'; expected: patient, slice"),
    ],
)
def test_arguments_out_of_range(trees, options, text):
    with pytest.raises(UserError, match=text):
        assign_folds(volumes(trees, [1] * 6), **{"folds": 5, "seed": 0, **options})


def test_patients_on_both_sides_are_named(trees):
    cases = volumes(trees, [1, 2, 2, 1])
    check_patient_disjoint(cases[:3], cases[3:])
    check_patient_disjoint(pictures(trees, 2), pictures(trees, 2))
    with pytest.raises(UserError, match="patients p1, p2 are in training and in test"):
        check_patient_disjoint([cases[1], cases[3]], [cases[2], cases[4], cases[5]], name="test")
