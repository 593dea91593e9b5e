"""Calibration end to end on two small trainings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from scripts.data.splits import SLICE_WARNING
from scripts.errors import UserError
from scripts.inference.calibration import calibrate
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.metadata import read_metadata, write_metadata
from scripts.inference.ood import OODScore
from scripts.inference.publishing import publish
from scripts.inference.segmenter import Segmenter
from scripts.io.reading import read_scan
from scripts.pipeline.case import CaseSegmenter
from scripts.pipeline.inputs import expand_inputs
from scripts.research.workflows import train_once
from tests.bundle_runner import run_command
from tests.conftest import save_scan


def test_the_command_completes_the_metadata_and_segment_obeys(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_dataset(cases=4, folds=2)
    listed = json.loads((data / "datalist.json").read_text())
    for fold in (0, 1):  # a scan that is said to have no infection in each fold
        values = np.asarray(nib.load(data / listed["training"][fold]["image"]).dataobj)
        save_scan(data / f"free_{fold}.nii.gz", values, np.diag([-6.0, -6.0, 8.0, 1.0]))
        free = {"name": f"free_{fold}", "image": f"free_{fold}.nii.gz", "patient": f"free_{fold}", "fold": fold}
        listed["training"].append(free | {"lesion_free": True})
    (data / "datalist.json").write_text(json.dumps(listed))
    settings = {"spatial_size": 32, "max_epochs": 1, "network_def#base_width": 4}
    trained = [
        train_once(["configs/train.yaml"], tmp_path / str(k), dataset_dir=str(data), fold=k, device="cpu", **settings)
        for k in (0, 1)
    ]
    weights, metadata = trained[0], read_metadata(trained[0])
    other = tmp_path / "other.pt"
    other.write_bytes(trained[1].read_bytes())
    stated = {key: read_metadata(trained[1])[key] for key in ("network", "preprocessing", "data", "figures")}
    for change, message in (
        ({"preprocessing": {**stated["preprocessing"], "size": 64}}, "another training"),
        ({"preprocessing": {**stated["preprocessing"], "z_score": False}}, "another preprocessing"),
        ({"data": {**stated["data"], "name": "elsewhere"}}, "was validated on fold 1 of other data"),
        ({"data": {**stated["data"], "folds": 1}}, "was validated on fold 1 of other data"),  # as many cases, others
    ):
        write_metadata(other, **{**stated, **change})
        with pytest.raises(UserError, match=message):
            calibrate(weights, str(data), [other], False, 10, torch.device("cpu"))
    write_metadata(other, **{**stated, "preprocessing": {**stated["preprocessing"], "patch_size": [16, 16, 4]}})
    with pytest.raises(UserError, match="sees volumes"):
        calibrate(other, str(data), [], False, 10, torch.device("cpu"))
    with pytest.raises(UserError, match="size is 50; expected: multiples of 16"):
        calibrate(weights, str(data), [], False, 10, torch.device("cpu"), size=50)
    for wrong in (float("nan"), -1.0, 20.5):
        with pytest.raises(UserError, match=r"through_plane_mm is .* expected: mm, 0 to 20"):
            calibrate(weights, str(data), [], False, 10, torch.device("cpu"), through_plane_mm=wrong)
    with pytest.raises(UserError, match=r"2 cases would be judged by several trainings \(folds \[0, 1, 0\]\)"):
        calibrate(weights, str(data), [*trained, trained[0]], False, 10, torch.device("cpu"))
    assert read_metadata(weights) == metadata

    done = run_command(
        "calibrate", weights, data, *trained, "--flips", "true", "--size", "48", "--through-plane-mm", "6"
    )
    metadata = read_metadata(weights)
    point, found = metadata["operating_point"], metadata["calibration"]
    assert f"threshold {point['threshold']:.3f}" in done.stdout
    assert point["test_time_flips"] is True
    assert point["through_plane_mm"] == 6.0
    least = (found["views"] or {}).get("least_percent")  # a network of one epoch may have no good mask
    assert point["least_views_agree_percent"] == least
    assert (metadata["preprocessing"]["size"], metadata["training"]) == (48, {"size": 32})
    rows = pd.read_csv(weights.with_suffix(".calibration.csv"))
    assert rows["case"].tolist() == found["cases"]
    assert rows["dice"].mean() == pytest.approx(found["dice"]["volumes"]["at_threshold"], abs=1e-4)
    assert rows["views_agree_percent"].dropna().between(0, 100).all()
    assert len(found["cases"]) == len(set(found["cases"])) == 4
    assert found["trainings"] == [read_metadata(run)["sha256"] for run in trained]
    limits = [metadata["familiarity"][key] for key in ("limit", "limit_volumes")]
    assert limits == pytest.approx([1.25 * max(found["distances"].values())] * 2, rel=1e-3)
    assert Image.open(weights.with_suffix(".calibration.png")).size[0] > 300

    case = listed["training"][0]  # judged as `segment` applies the weights
    scan, label = (read_scan(data / case[key]) for key in ("image", "label"))
    as_applied = Segmenter(weights, "cpu", backend="torch", precision="fp32", keep_outside=True)
    assert as_applied.through_plane_mm == 6.0 > scan.spacing_lps[2]
    mask, truth = as_applied.segment(scan, HounsfieldSlices(scan)).mask > 0, label.values > 0
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    assert rows.loc[rows["case"] == case["name"], "dice"].item() == pytest.approx(dice, abs=1e-4)
    free, out = found["lesion_free"], tmp_path / "out"
    assert free["volumes"] == len(free["ml"]) == 2
    model = CaseSegmenter(Segmenter(weights, "cpu", backend="torch", precision="fp32"))
    (one,) = expand_inputs([data / "free_0.nii.gz"], out)
    measures = model.run(one, out / one.folder)["measures"]  # by the weights that did not see it
    assert any(measures["infection"]["infection_ml"] == pytest.approx(ml, rel=1e-3) for ml in free["ml"])
    assert measures["lesion_free"]["volumes"] == 2
    assert measures["lesion_free"]["largest"] == free["ml"][1]
    others: list[dict[str, Any]] = [{"threshold": 0.9}, {"keep_outside": True}, {"test_time_flips": 1}]
    assert [Segmenter(weights, "cpu", **other).lesion_free for other in others] == [None] * 3

    scan = next((data / "images").glob("*.nii*"))
    (one,) = expand_inputs([scan], out)
    report = model.run(one, out / one.folder)
    expected = {**point, "keep_outside": False}  # of the run, not of the weights
    applied = report["model"]["operating_point"]
    assert applied.pop("least_views_agree_percent") == expected.pop("least_views_agree_percent")
    assert applied == pytest.approx(expected, rel=1e-5)
    assert model.segmenter.slice_input.size == 48
    assert 0 < report["familiarity"]["distance"] < report["familiarity"]["limit"]


def test_only_slices_of_the_own_fold_are_judged_and_learnt_from(
    make_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Split by slice, and with a picture among them:
    both halves of a volume are cases of their own."""
    folder = make_dataset(cases=2, folds=2, shape=(40, 36, 12))
    content = json.loads((folder / "datalist.json").read_text())
    parts = [list(range(0, 12, 2)), list(range(1, 12, 2))]
    content["training"] = [
        {**one, "name": f"{one['name']}_{fold}", "slices": part, "fold": fold}
        for one in content["training"]
        for fold, part in enumerate(parts)
    ]
    for name, level in (("picture", 90), ("label", 255)):
        Image.fromarray(np.full((36, 40), level, np.uint8)).save(folder / f"{name}.png")
    picture = {"image": "picture.png", "label": "label.png", "patient": None, "name": "picture", "fold": 1}
    content["training"].append(picture)
    (folder / "datalist.json").write_text(json.dumps({**content, "split": "slice", "warnings": [SLICE_WARNING]}))
    settings = {"spatial_size": 32, "max_epochs": 1, "network_def#base_width": 4, "fold": 0, "device": "cpu"}
    weights = train_once(["configs/train.yaml"], tmp_path / "run", dataset_dir=str(folder), **settings)
    learnt = []
    of = OODScore.of
    monkeypatch.setattr(
        OODScore,
        "of",
        lambda layers, rows, *limits, **named: learnt.append(len(rows)) or of(layers, rows, *limits, **named),
    )
    with pytest.raises(UserError, match="data split by slice"):
        calibrate(weights, str(folder), [], False, 9, torch.device("cpu"), through_plane_mm=3.0)
    stated = calibrate(weights, str(folder), [], False, 9, torch.device("cpu"))
    assert set(learnt) == {1 + 2 * 4}  # the picture, and the rest of nine shared by two halves of six slices
    assert stated["calibration"]["cases"] == ["case_00_0", "case_01_0"]
    assert sum(row["voxels"] for row in stated["calibration"]["curve"]) == 2 * 6 * 40 * 36
    assert {kind: dice["n"] for kind, dice in stated["calibration"]["dice"].items()} == {"volumes": 2}
    hidden = {"case_01_0"}  # all its slices lie above or below the lungs

    def none_of_hidden(item: Mapping[str, Any]) -> NDArray[np.intp]:
        return np.arange(0 if item["name"] in hidden else item["image"].shape[-1])

    monkeypatch.setattr("scripts.inference.unseen_cases.slices_in_view", none_of_hidden)
    stated = calibrate(weights, str(folder), [], False, 9, torch.device("cpu"))
    assert stated["calibration"]["cases"] == ["case_00_0", "case_01_0"]
    assert list(stated["calibration"]["distances"]) == ["case_00_0"]
    assert pd.read_csv(weights.with_suffix(".calibration.csv"))["distance"].isna().tolist() == [False, True]
    hidden.add("case_00_0")
    with pytest.raises(UserError, match="no slice of the cases lies in the field of view"):
        calibrate(weights, str(folder), [], False, 9, torch.device("cpu"))
    metadata, other = read_metadata(weights), tmp_path / "other.pt"
    other.write_bytes(weights.read_bytes())
    write_metadata(other, metadata["network"], metadata["preprocessing"], {**metadata["data"], "fold": None}, {})
    with pytest.raises(UserError, match=r"other\.pt: was validated on fold None of other data"):
        publish(other, tmp_path / "new.pt", str(folder), torch.device("cpu"))
    assert not (tmp_path / "new.pt").exists()
