from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scripts.errors import UserError
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.segmenter import Segmenter
from scripts.io.reading import read_scan
from scripts.research.priors import class_cases, describe_prior, with_classes_as_label

MakeDataset = Callable[..., Path]


def change(folder: Path, edit: Callable[[list[dict]], None]) -> None:
    datalist = json.loads((folder / "datalist.json").read_text())
    edit(datalist["training"])
    (folder / "datalist.json").write_text(json.dumps(datalist))


def test_truth_is_the_mask_with_its_codes(make_class_dataset: MakeDataset, tmp_path: Path) -> None:
    folder = make_class_dataset()
    change(folder, lambda cases: [case.update(label_codes=[1]) for case in cases])
    cases = class_cases(str(folder), "training", 0, "truth", str(tmp_path / "priors"), "cpu")
    assert [case["name"] for case in cases] == ["case_01", "case_03"]
    assert all(case["prior"] == case["label"] and case["prior_codes"] == [1] for case in cases)
    assert not (tmp_path / "priors").exists()
    assert [case["label"] for case in with_classes_as_label(cases)] == [case["classes"] for case in cases]


def test_files_must_be_there_for_every_case(make_class_dataset: MakeDataset, tmp_path: Path) -> None:
    folder = make_class_dataset()
    change(folder, lambda cases: cases[0].update(prior=cases[0]["label"]))
    with pytest.raises(UserError, match=r"3 cases have no prior \(case_01, case_02, case_03\)"):
        class_cases(str(folder), "all", None, "file", str(tmp_path), "cpu")
    change(folder, lambda cases: [case.update(prior=case["label"]) for case in cases])
    assert len(class_cases(str(folder), "all", None, "file", str(tmp_path), "cpu")) == 4


def test_cases_without_classes_are_left_out(make_class_dataset: MakeDataset, tmp_path: Path) -> None:
    folder = make_class_dataset()
    change(folder, lambda cases: cases[2].pop("classes"))
    found = class_cases(str(folder), "all", None, "truth", str(tmp_path), "cpu")
    assert [case["name"] for case in found] == ["case_00", "case_01", "case_03"]
    change(folder, lambda cases: [case.pop("classes", None) for case in cases])
    with pytest.raises(UserError, match="4 cases of split all, none with a multi-class label"):
        class_cases(str(folder), "all", None, "truth", str(tmp_path), "cpu")


def test_weights_give_the_probabilities_of_the_segmenter(
    make_class_dataset: MakeDataset, weights: Path, tmp_path: Path
) -> None:
    folder = make_class_dataset(cases=2)
    cases = class_cases(str(folder), "all", None, str(weights), str(tmp_path / "priors"), "cpu")
    segmenter = Segmenter(weights, "cpu")
    for case in cases:
        scan = read_scan(Path(case["image"]))
        expected = segmenter.segment(scan, HounsfieldSlices(scan), probability=True).probability
        np.testing.assert_array_equal(np.asarray(nib.load(case["prior"]).dataobj), expected)
        assert case["prior_scale"] == 255
    assert describe_prior(str(weights), 0) == segmenter.metadata["sha256"]
    assert describe_prior("truth", 0) == "truth"

    of_fold = str(weights).replace(weights.name, weights.name.replace("model", "model{fold}"))
    with pytest.raises(UserError, match=r"model0\.pt: no such weights for the prior; expected: those of Semi-Inf-Net"):
        describe_prior(of_fold, 0)
    assert describe_prior(str(weights.with_name("{fold}.pt")), weights.stem) == segmenter.metadata["sha256"]

    again = class_cases(str(folder), "all", None, str(weights), str(tmp_path / "priors"), "cpu")
    assert [case["prior"] for case in again] == [case["prior"] for case in cases]
    os.utime(cases[0]["image"], ns=(1, 1))  # another image under the same name: no stale map
    anew = class_cases(str(folder), "all", None, str(weights), str(tmp_path / "priors"), "cpu")
    assert {case["prior"] for case in anew}.isdisjoint(case["prior"] for case in cases)
