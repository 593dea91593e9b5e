"""The shipped weights: their metadata, and scans that nothing of theirs has seen."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from scripts.inference.building import trained_network
from scripts.inference.metadata import read_metadata
from scripts.inference.publishing import MOST_MB

SHIPPED = {"compact": Path("models/model.pt"), "full": Path("models/full.pt")}
CLASSES = Path("models/classes.pt")


def test_all_weights_are_small_and_load_without_pickled_code(bundle_root: Path) -> None:
    found = sorted((bundle_root / "models").glob("*.pt"))
    assert {path.name for path in found} == {path.name for path in (*SHIPPED.values(), CLASSES)}
    for path in found:
        content = torch.load(path, weights_only=True)
        assert all(isinstance(value, torch.Tensor) for value in content.values())
        halved = path.name != CLASSES.name  # `publish` compares no classes
        dtype = torch.float16 if halved else torch.float32
        assert {value.dtype for value in content.values() if value.ndim > 1} == {dtype}
        assert read_metadata(path)["data"]["synthetic"] is False  # its SHA-256 is that of the weights
    assert sum(path.stat().st_size for path in found) <= MOST_MB * 2**20


@pytest.mark.parametrize(("model", "parameters"), [("compact", 1_831_107), ("full", 29_189_355)])
def test_the_metadata_says_what_they_are(model: str, parameters: int, bundle_root: Path, sealed: set[str]) -> None:
    metadata = read_metadata(bundle_root / SHIPPED[model])  # refuses checkpoint metadata of other weights
    network, _ = trained_network(bundle_root / SHIPPED[model], torch.device("cpu"))
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert metadata["data"]["split"] == "patient"
    assert {"threshold", "least_slice_share"} <= set(metadata["operating_point"])
    assert metadata["operating_point"]["least_slice_share"] > 0  # the rule for a slice was chosen, on unseen folds
    assert not sealed & set(metadata["calibration"]["cases"])
    assert len(metadata["calibration"]["trainings"]) == 3  # chosen on every fold


@pytest.mark.parametrize("model", SHIPPED)
def test_what_documents_say_of_them_is_what_their_trainings_say(model: str, bundle_root: Path) -> None:
    stated, folder = read_metadata(bundle_root / SHIPPED[model])["calibration"], bundle_root / "docs/results" / model
    experiment = (pd.read_csv(folder / name) for name in ("runs.csv", "cases.csv"))
    runs, measured = (table[table["variant"] == model] for table in experiment)  # other rows are compared with them
    cases = pd.read_csv(folder / "calibration.csv")
    assert sorted(runs["fold"]) == [0, 1, 2]
    assert sorted(stated["trainings"]) == sorted(runs["weights_sha256"])
    assert sorted(stated["cases"]) == sorted(cases["case"]) == sorted(measured["case"])
    assert cases["case"].is_unique
    metadata = json.loads((bundle_root / "configs/metadata.json").read_text())["eval_metrics"]
    text = (bundle_root / "docs/README.md").read_text(encoding="utf-8")
    for kind, name in (("volumes", "volumes"), ("slices", "pictures")):
        own = cases[cases["kind"] == name]
        mean, sd = own["dice"].mean(), own["dice"].std()
        assert stated["dice"][name]["n"] == len(own) == metadata[f"{model}_cross_validation_dice_{kind}_n"]
        assert stated["dice"][name]["at_threshold"] == pytest.approx(mean, abs=1e-4)
        assert metadata[f"{model}_cross_validation_dice_{kind}_mean"] == pytest.approx(mean, abs=5e-4)
        assert metadata[f"{model}_cross_validation_dice_{kind}_sd"] == pytest.approx(sd, abs=5e-4)
        assert f" {mean:.3f} ({sd:.3f}) " in text


@pytest.mark.parametrize("model", SHIPPED)
def test_the_table_of_weights_holds_these(model: str, bundle_root: Path) -> None:
    rows = pd.read_csv(bundle_root / "docs/results/weights/rows.csv")
    trainings = read_metadata(bundle_root / SHIPPED[model])["calibration"]["trainings"]
    own = rows[rows["weights"] == model]
    assert set(own["sha256"]) == set(trainings)
    assert not own["trained_on"].any()
    assert sorted(own["case"]) == sorted(rows.loc[rows["weights"] == "0.9.1", "case"])  # every case, each once


def test_what_the_class_weights_reach_follows_from_the_cases(bundle_root: Path, sealed: set[str]) -> None:
    cases = pd.read_csv(bundle_root / "docs/results/classes/cases.csv")
    assert not any(cases["case"].str.contains(patient).any() for patient in sealed)
    assert len(cases) == len(cases[["case", "class"]].drop_duplicates()) == 2 * 53
    text = (bundle_root / "docs/README.md").read_text(encoding="utf-8")
    holding = cases[cases["actual"] > 0]
    for (name, volume), own in holding.groupby(["class", holding["n_slices"] > 1]):
        figures = " | ".join(f"{own[key].mean():.3f}" for key in ("sensitivity", "precision"))
        label = f"{name.replace('_', ' ')}, {'volumes' if volume else 'slices'}"
        assert f"| {label} | {len(own)} | {own['dice'].mean():.3f} ({own['dice'].std():.3f}) | {figures} |" in text


@pytest.fixture(scope="module", params=SHIPPED)
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, lung_ct_data: Path, bundle_root: Path
) -> Path:
    """Two scans of other hospitals than the training data's, segmented with the shipped weights."""
    out = tmp_path_factory.mktemp("shipped") / "out"
    scans = [lung_ct_data / "covid_ct_md" / name for name in ("P001", "normal001_ct_256.nii.gz")]
    words = [sys.executable, "-m", "scripts", "segment", *scans, out, "--device", "cpu", "--model", request.param]
    done = subprocess.run([str(word) for word in words], cwd=bundle_root, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "DEMONSTRATION" not in done.stderr
    return out


@pytest.mark.slow
@pytest.mark.real_data
def test_a_normal_chest_stays_nearly_clean(results: Path) -> None:
    report = json.loads((results / "normal001_ct_256" / "report.json").read_text())
    assert report["measures"]["lungs"]["total"]["infected_percent"] < 0.1
    assert np.asarray(nib.load(results / "normal001_ct_256" / "infection.nii.gz").dataobj).mean() < 2e-4


@pytest.mark.slow
@pytest.mark.real_data
def test_slices_with_infection_are_found_and_clean_ones_left(
    results: Path, lung_ct_data: Path, bundle_root: Path, request: pytest.FixtureRequest
) -> None:
    """As the model card says to a slice, since another processor rounds otherwise. Compact misses
    the goal for clean slices; once it meets it, this says so."""
    labels = lung_ct_data / "covid_ct_md" / "P001_slice_labels.csv"
    words = [sys.executable, "docs/measure_slices.py", results / "P001" / "report.json", labels]
    done = subprocess.run([str(word) for word in words], cwd=bundle_root, capture_output=True, text=True)
    found, marked = map(float, re.findall(r"count as infected \((.*?)%\)", done.stdout))
    counted = [int(number) for number in re.findall(r": (\d+) count as infected", done.stdout)]
    model = json.loads((results / "manifest.json").read_text())["settings"]["model"]["name"]
    text = (bundle_root / "docs/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| P001.* count as infected by the rule \| \d+ \| (\d+), .* \| (\d+), ", text, re.MULTILINE)
    stated = [int(row[list(SHIPPED).index(model)]) for row in rows]
    assert len(counted) == len(stated) == 2
    assert counted == pytest.approx(stated, abs=1)
    assert found >= 80
    if model == "compact":
        request.applymarker(pytest.mark.xfail(reason="8 of 68, 11.8 % (docs/README.md)", strict=True))
    assert marked <= 6
