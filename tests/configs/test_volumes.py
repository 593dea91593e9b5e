"""The network for volumes by the commands of the contract: the same ones,
its metadata says the rest."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.lung_network import LungNetwork
from scripts.io.reading import read_scan
from tests.bundle_runner import NARROW, run_bundle
from tests.conftest import OBLIQUE
from tests.doc_scripts import load_script

TRAIN = "['configs/train.yaml','configs/networks/fv_paspp_unet3d.yaml']"
EVALUATE = "['configs/train.yaml','configs/evaluate.yaml']"
TRAIN_LUNGS = "['configs/train.yaml','configs/networks/fv_paspp_unet3d.yaml','configs/lungs.yaml']"
EVALUATE_LUNGS = "['configs/train.yaml','configs/evaluate.yaml','configs/evaluate_lungs.yaml']"
SMALL = {"patch_size": "[16,16,4]", "patches_per_volume": 4, "val_interval": 1}


def rows(folder: Path) -> list[dict[str, str]]:
    lines = csv.DictReader((folder / "history.csv").open())
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_training_evaluation_and_inference(turned, make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    dataset, weights = make_dataset(), tmp_path / "run" / "model.pt"
    run_bundle("training", TRAIN, dataset_dir=dataset, output_dir=weights.parent, **{**NARROW, **SMALL})
    metadata = json.loads(weights.with_suffix(".json").read_text())
    assert metadata["network"]["name"] == "fv_paspp_unet3d"
    assert metadata["preprocessing"] == {
        "size": 32,
        "window": [-1250, 250],
        "intensity": "auto",
        "field_of_view": "scan",
        "z_score": False,
        "lung_only": True,
        "patch_size": [16, 16, 4],
    }
    assert metadata["figures"]["slices"] == 12
    measured = {f"val_case_{name}" for name in ("dice", "iou", "sensitivity", "precision", "mae", "s_measure")}
    assert measured | {"val_mean_dice", "val_loss"} <= set(metadata["figures"]["validation"])

    common = {"checkpoint": weights, "device": "cpu"}
    tables, masks, scans = tmp_path / "tables", tmp_path / "masks", tmp_path / "scans"
    run_bundle("evaluation", EVALUATE, dataset_dir=dataset, output_dir=tables, **common)
    cases = pd.read_csv(tables / "metrics.csv")
    assert sorted(cases["case"]) == ["case_00", "case_02"]
    assert len(pd.read_csv(tables / "slices.csv")) == 12

    scans.mkdir()
    for name in ("case_00", "case_02"):
        image = nib.load(dataset / "images" / f"{name}.nii.gz")
        nib.save(image, scans / f"{name}.nii.gz")
        stored = turned(nib.Nifti1Image(np.asarray(image.dataobj), OBLIQUE), "SAR")
        stored.set_sform(stored.affine, 2)
        nib.save(stored, scans / f"{name}_turned.nii.gz")
    run_bundle("inference", "configs/inference.yaml", dataset_dir=scans, output_dir=masks, **common)
    for _, row in cases.iterrows():
        mask = nib.load(masks / f"{row['case']}_infection.nii.gz").get_fdata() > 0
        truth = nib.load(dataset / "labels" / f"{row['case']}.nii.gz").get_fdata() > 0
        assert (row["tp"], row["predicted"]) == ((mask & truth).sum(), mask.sum())
        assert row["dice"] == pytest.approx(2 * (mask & truth).sum() / (mask.sum() + truth.sum()), abs=1e-9)
        found, source = (
            nib.load(folder / f"{row['case']}_turned{suffix}.nii.gz")
            for folder, suffix in ((masks, "_infection"), (scans, ""))
        )
        assert found.shape == source.shape
        assert found.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(found.affine, source.affine)
        np.testing.assert_array_equal(np.asarray(turned(found, "LPS").dataobj), mask)


def test_lungs_are_trained_evaluated_and_found_in_a_scan(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    """At the scans' own resolution; of one case the lungs are known in half of the slices."""
    dataset, run = make_dataset(shape=(48, 40, 12)), tmp_path / "run"
    listed = json.loads((dataset / "datalist.json").read_text())
    for case in listed["training"]:
        image = nib.load(dataset / case["image"])
        lung = np.zeros(image.shape, np.uint8)
        lung[2:23, 4:36], lung[25:46, 4:36] = 1, 2
        lung[..., :6] = 255 if case["name"] == "case_00" else lung[..., :6]
        case["lung"] = f"{case['name']}_lung.nii.gz"
        nib.save(nib.Nifti1Image(lung, image.affine), dataset / case["lung"])
    (dataset / "datalist.json").write_text(json.dumps(listed))
    settings = {**NARROW, **SMALL, "spatial_size": -1, "network_def#heads": 3, "max_epochs": 4}
    run_bundle("training", TRAIN_LUNGS, dataset_dir=dataset, output_dir=run, **settings)
    metadata = json.loads((run / "model.json").read_text())
    assert metadata["targets"] == ["infection", "lungs"]
    assert metadata["preprocessing"]["size"] == -1
    assert {"val_lungs_dice", "val_lungs_iou", "val_case_dice"} <= set(metadata["figures"]["validation"])

    common = {"dataset_dir": dataset, "checkpoint": run / "model.pt", "device": "cpu"}
    run_bundle("evaluation", EVALUATE, output_dir=tmp_path / "tables", **common)
    run_bundle("evaluation", EVALUATE_LUNGS, output_dir=tmp_path / "both", **common)
    infection = pd.read_csv(tmp_path / "tables" / "metrics.csv").set_index("case")
    both = pd.read_csv(tmp_path / "both" / "targets.csv").set_index(["target", "case"])
    for key in ("tp", "predicted", "actual"):
        assert both.loc["infection"][key].to_dict() == infection[key].to_dict()
    known = both.loc["lungs"]
    assert known["n_slices"].to_dict() == {"case_00": 6, "case_02": 12}
    assert known["actual"].to_dict() == {"case_00": 2 * 21 * 32 * 6, "case_02": 2 * 21 * 32 * 12}
    assert {"dice", "iou"} <= set(
        json.loads((tmp_path / "both" / "summary.json").read_text())["figures"]["lungs"]["case"]
    )

    scan = read_scan(dataset / "images" / "case_02.nii.gz")
    network = LungNetwork(run / "model.pt", torch.device("cpu"))
    lungs = network.find(scan, HounsfieldSlices(scan))
    assert int(lungs.areas().sum()) == known.loc["case_02", "predicted"]
    assert lungs.notes[0] == "The lungs were found by the network model.pt."

    load_script("measure_lungs").main(str(dataset), str(tmp_path / "rows.csv"), str(run / "model.pt"))
    compared = pd.read_csv(tmp_path / "rows.csv").set_index("case")
    for measure in ("dice", "iou"):
        assert compared[f"network_{measure}"].to_dict() == pytest.approx(known[measure].to_dict(), abs=1e-6)
    assert (compared["thresholds_dice"] < 0.5).all()  # noise is no chest


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    settings = {**NARROW, **SMALL, "dataset_dir": make_dataset(), "network_def#dropout": 0.2}
    settings |= {"lung_only": "false", "amp": "false"}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_bundle("training", TRAIN, output_dir=whole, **{**settings, "max_epochs": 4})
    run_bundle("training", TRAIN, output_dir=broken, **settings)
    run_bundle("training", TRAIN, output_dir=broken, resume="true", **{**settings, "max_epochs": 4})
    assert rows(broken) == rows(whole)
    states = [torch.load(folder / "last.pt", weights_only=True)["network"] for folder in (whole, broken)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert (whole / "model.pt").read_bytes() == (broken / "model.pt").read_bytes()
    assert json.loads((whole / "model.json").read_text())["preprocessing"]["lung_only"] is False
