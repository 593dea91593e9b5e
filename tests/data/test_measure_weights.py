"""Which cases docs/measure_weights.py measures weights on, and how it groups them."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from scripts.data.datalist import describe
from scripts.data.layouts.base import new_case
from scripts.data.layouts.build import build_datalist
from scripts.data.layouts.prepared import write_prepared
from scripts.errors import UserError
from scripts.inference.metadata import read_metadata
from scripts.inference.segmenter import Segmenter
from scripts.version import BUNDLE
from tests.doc_scripts import load_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("measure_weights")


def test_weights_of_other_data_are_measured_on_all_cases_and_tell_which_they_saw(
    script: ModuleType, trees, make_checkpoint, tmp_path: Path
) -> None:
    known = {"cases": ["coronacases_001", "coronacases_007"]}  # of which 007 was the validation case
    trained = {"name": "elsewhere", "fold": ["coronacases_007"], "synthetic": False}
    weights = make_checkpoint(tmp_path / "model.pt", data=trained, calibration=known)
    sources = [trees.zenodo(("coronacases_001", "coronacases_007", "coronacases_009")), trees.negatives()]
    write_prepared(build_datalist(sources, folds=2)[0], tmp_path / "data", copy=False)
    cases = script.cases_of(weights, str(tmp_path / "data"), first=True)
    found = {case["name"]: seen for case, seen in cases}
    assert {name for name, seen in found.items() if seen} == {"coronacases_001"}
    assert {"coronacases_007", "coronacases_009", "a", "tumour_c", "negatives_normal_000"} < set(found)


def test_weights_of_the_same_data_in_another_list_say_what_they_saw_or_are_refused(
    script: ModuleType, trees, make_checkpoint, tmp_path: Path
) -> None:
    sources = [trees.zenodo(("coronacases_001", "coronacases_007", "coronacases_009")), trees.negatives()]
    data = str(tmp_path / "data")
    write_prepared(build_datalist(sources, folds=2)[0], tmp_path / "data", copy=False)
    trained = describe(data, 0) | {"seed": 1}
    plain = make_checkpoint(tmp_path / "plain.pt", data=trained)
    own = read_metadata(plain)["sha256"]
    judged = {"cases": ["coronacases_001"], "lesion_free": {"volumes": 1, "percent_of_lungs": [], "ml": []}}
    for calibration in ({}, {**judged, "trainings": [own]}):  # of its own fold, whose cases it did not see
        weights = make_checkpoint(tmp_path / "weights.pt", data=trained, calibration=calibration)
        with pytest.raises(UserError, match="another list of this data, and its metadata do not say on which cases"):
            script.cases_of(weights, data, first=True)
    weights = make_checkpoint(tmp_path / "weights.pt", data=trained, calibration={**judged, "trainings": ["a", "b"]})
    found = {case["name"]: seen for case, seen in script.cases_of(weights, data, first=True)}
    unseen = {name for name, seen in found.items() if not seen}
    assert unseen == {"coronacases_007", "coronacases_009"}
    assert {"coronacases_001", "a", "negatives_normal_000"} < set(found)


def test_rows_say_by_which_version_weights_were_applied(
    script: ModuleType, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter(weights, "cpu", backend="torch", precision="fp32")
    monkeypatch.setattr(script, "bundle_version", lambda: "0.1.2")
    expected = "version 0.1.2, torch fp32, 1 views, threshold 0.5, slice fraction 0.01, 48 x 48"
    assert script.applied_as(segmenter, 0.01, 48, False) == expected


@pytest.mark.parametrize(
    ("name", "free", "group"),
    [
        ("coronacases_001.nii.gz", False, "coronacases"),
        ("radiopaedia_4_85506_1.nii.gz", False, "radiopaedia"),
        ("pet_ct.nii.gz", True, "negative volumes"),
        ("3.png", False, "pictures"),
        ("normal_3.jpg", True, "negative pictures"),
    ],
)
def test_groups(script: ModuleType, name: str, free: bool, group: str) -> None:
    case = new_case(name.partition(".")[0], Path(name), None)
    assert script.group_of({**case, "lesion_free": True} if free else case) == group


def test_a_folder_stands_for_the_weights_of_its_folds(script: ModuleType, tmp_path: Path) -> None:
    for fold in (0, 1):
        weights = tmp_path / f"seed_0/fold_{fold}/run/model.pt"
        weights.parent.mkdir(parents=True)
        weights.touch()
    name, files = script.expand(f"new={tmp_path}")
    assert (name, len(files)) == ("new", 2)
    with pytest.raises(UserError, match="names no weights"):
        script.expand("new=")


def test_readme_states_what_the_rows_say() -> None:
    rows = pd.read_csv(BUNDLE / "docs/results/weights/rows.csv")
    of = {name: rows[rows["weights"] == name].groupby("group") for name in ("compact", "full")}
    dice = [{group: f"{v.mean():.3f} ({v.std():.3f})" for group, v in by["dice"]} for by in of.values()]
    marked = [by["lung_percent"].get_group("negative volumes") for by in of.values()]
    cells = [(dice[0][group], dice[1][group]) for group in ("coronacases", "radiopaedia", "pictures")]
    cells += [tuple(f"{v.mean():.1f} ({v.max():.1f})" for v in marked)]
    cells += [tuple(str(int(by["counted_slices"].get_group("negative pictures").sum())) for by in of.values())]
    readme = (BUNDLE / "README.md").read_text(encoding="utf-8")
    stated = re.findall(r"^\| .* \| (.*) \| (.*) \| `docs/measure_weights\.py` \|$", readme, flags=re.MULTILINE)
    assert stated == cells
