"""The report for programs: complete, plain JSON, nothing that names a person's folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scripts.files import write_json
from scripts.io.volume import Note
from scripts.report.report import DEMONSTRATION
from scripts.version import bundle_version

KEYS = ["format", "created", "intended_use", "demonstration", "case", "notes", "measures"]
KEYS += ["change", "familiarity", "model", "settings"]


def test_keys_are_stable_and_the_file_reads_back(tmp_path, small_report):
    report = small_report()
    path = write_json(tmp_path / "report.json", report)
    assert json.loads(path.read_text()) == report
    assert list(report) == [*KEYS, "timings_s"]
    assert report["format"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_case_and_model_are_described(small_report):
    report = small_report()
    case, model = report["case"], report["model"]
    assert (case["name"], case["input"], case["shape_voxels"]) == ("case_1", "case_1.nii.gz", [12, 10, 6])
    assert (case["spacing_mm"], case["axes_point_to"], case["stored_type"]) == ([0.7, 0.8, 5.0], "LPS", "int16")
    assert (model["weights"], model["weights_sha256"], model["network"]) == ("model.pt", "ab" * 32, "resunet")
    assert (model["operating_point"]["threshold"], model["version"]) == (0.4, bundle_version())
    assert report["measures"]["infection"]["infection_ml"] == pytest.approx(12 * 0.0028)
    assert report["timings_s"]["network"] == 1.23457


def test_folders_are_left_out(small_report):
    text = json.dumps(small_report())
    assert "erika" not in text


def test_demonstration_weights_are_told(small_report):
    assert small_report(synthetic=True)["demonstration"] == DEMONSTRATION
    assert small_report()["demonstration"] is None
    assert "not a medical device" in small_report()["intended_use"]


def test_every_note_is_kept_once(small_report):
    note = Note("few_slices", "Only 6 slices.", "warning")
    assert small_report(notes=[note, note])["notes"] == [
        {"code": "few_slices", "text": "Only 6 slices.", "kind": "warning"}
    ]


def test_facts_become_what_json_can_hold(tmp_path, small_report):
    facts = {
        "kvp": np.float32(120),
        "slope": float("nan"),
        "count": np.int16(3),
        "flag": np.bool_(True),
        "path": Path("a"),
        "list": (np.inf, {"deep": np.arange(2)}),
    }
    report = small_report(facts=facts)
    expected = {"kvp": 120.0, "slope": None, "count": 3, "flag": True, "path": "a", "list": [None, {"deep": [0, 1]}]}
    assert report["case"]["facts"] == expected
    assert "NaN" not in write_json(tmp_path / "r.json", report).read_text()


def test_an_unknown_voxel_size_leaves_no_size_behind(small_report):
    report = small_report(known=False)
    assert not {"spacing_mm", "axes_point_to"} & report["case"].keys()
    assert "_ml" not in json.dumps(report["measures"])
    assert report["case"]["voxel_size_known"] is False
