"""The stage of classes as its users run it: train, resume, evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigParser

from tests.bundle_runner import run_bundle, run_command

TRAIN = "['configs/train.yaml','configs/multiclass.yaml']"
EVALUATE = "['configs/train.yaml','configs/evaluate.yaml','configs/evaluate_multiclass.yaml']"
SEEN = {"size": 32, "window": [-1250, 250], "intensity": "auto", "z_score": True}
SMALL = {"network_def#base_width": 4, "spatial_size": 32, "batch_size": 4, "device": "cpu"}


def test_parts(bundle_root: Path, make_class_dataset: Callable[..., Path], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(bundle_root)
    parser = ConfigParser()
    parser.read_config(["configs/train.yaml", "configs/multiclass.yaml"])
    settings = {
        "dataset_dir": str(make_class_dataset()),
        "output_dir": str(tmp_path),
        "network_def#base_width": 8,
        "prior": "truth",
    }
    for key, value in {**settings, "device": "cpu", "spatial_size": 32}.items():
        parser[key] = value
    trainer = parser.get_parsed_content("train#trainer")
    assert trainer.state.max_epochs == 200
    optimizer = trainer.optimizer
    assert type(optimizer) is torch.optim.SGD
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"], optimizer.defaults["weight_decay"]) == (
        0.01,
        0.7,
        0,
    )
    assert parser.get_parsed_content("train#dataloader").batch_size == 16
    logits = torch.tensor([0.3, -1.0, 2.0]).reshape(1, 3, 1, 1)
    label = torch.tensor([0.0, 1.0, 0.0]).reshape(1, 3, 1, 1)
    chances = 1 / (1 + np.exp(-np.array([0.3, -1.0, 2.0])))  # a sigmoid each
    expected = -np.log([1 - chances[0], chances[1], 1 - chances[2]]).mean()
    assert trainer.loss_function(logits, label).item() == pytest.approx(expected, rel=1e-6)
    assert parser.get_parsed_content("checkpoint_metadata")["preprocessing"]["prior"] == "truth"


def test_the_preset_for_a_cpu_goes_on_top(
    bundle_root: Path, make_class_dataset: Callable[..., Path], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(bundle_root)
    parser = ConfigParser()
    parser.read_config(["configs/train.yaml", "configs/multiclass.yaml", "configs/presets/cpu.yaml"])
    for key, value in {"dataset_dir": str(make_class_dataset()), "output_dir": str(tmp_path), "device": "cpu"}.items():
        parser[key] = value
    parser["spatial_size"], parser["prior"] = 32, "truth"
    trainer = parser.get_parsed_content("train#trainer")
    assert (type(trainer.optimizer), trainer.state.max_epochs) == (torch.optim.SGD, 40)
    assert trainer.network.spec["arguments"]["base_width"] == 16
    assert isinstance(parser.get_parsed_content("train#schedule"), torch.optim.lr_scheduler.OneCycleLR)


def test_without_a_fold_nothing_validates(
    bundle_root: Path, make_class_dataset: Callable[..., Path], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(bundle_root)
    parser = ConfigParser()
    parser.read_config(["configs/train.yaml", "configs/multiclass.yaml"])
    dataset = make_class_dataset()
    settings = {
        "dataset_dir": str(dataset),
        "output_dir": str(tmp_path),
        "network_def#base_width": 4,
        "fold": None,
        "prior": "truth",
    }
    for key, value in {**settings, "device": "cpu", "spatial_size": 32, "max_epochs": 1}.items():
        parser[key] = value
    listed = json.loads((dataset / "datalist.json").read_text())["training"]
    assert len(parser.get_parsed_content("train#dataset").data) == len(listed)
    parser.get_parsed_content("train#trainer").run()
    assert "validation" not in json.loads((tmp_path / "model.json").read_text())["figures"]


def test_train_evaluate_classify(make_class_dataset: Callable[..., Path], make_checkpoint, tmp_path: Path) -> None:
    dataset = make_class_dataset()
    settings = {**SMALL, "dataset_dir": dataset, "prior": "truth"}
    run_bundle("training", TRAIN, output_dir=tmp_path / "run", max_epochs=2, **settings)
    rows = pd.read_csv(tmp_path / "run" / "history.csv")
    assert len(rows) == 2
    both = (rows["val_ground_glass_dice"] + rows["val_consolidation_dice"]) / 2
    np.testing.assert_allclose(rows["val_mean_dice"], both, atol=1e-9)
    for name in ("mae", "e_measure", "s_measure"):  # defined on every slice
        both = (rows[f"val_ground_glass_{name}"] + rows[f"val_consolidation_{name}"]) / 2
        np.testing.assert_allclose(rows[f"val_mean_{name}"], both, atol=1e-9)
    metadata = json.loads((tmp_path / "run" / "model.json").read_text())
    assert metadata["network"]["name"] == "mc_unet"
    assert metadata["preprocessing"] == {**SEEN, "prior": "truth"}

    infection = make_checkpoint(tmp_path / "infection.pt", size=32)
    tables = tmp_path / "tables"
    found = {"dataset_dir": dataset, "checkpoint": tmp_path / "run" / "model.pt", "device": "cpu"}
    run_bundle("evaluation", EVALUATE, output_dir=tables, prior=infection, **found)
    classes = pd.read_csv(tables / "classes.csv")
    expected = [(f"case_0{n}", name) for n in (0, 2) for name in ("ground_glass", "consolidation")]
    assert list(zip(classes["case"], classes["class"], strict=True)) == expected
    assert set(classes.columns) >= {"dice", "sensitivity", "specificity", "precision", "mae", "e_measure", "s_measure"}
    for (case, name), actual in zip(expected, classes["actual"], strict=True):
        codes = np.asarray(nib.load(dataset / "classes" / f"{case}.nii.gz").dataobj)
        assert actual == np.count_nonzero(codes == (1 if name == "ground_glass" else 2))
    summary = json.loads((tables / "summary.json").read_text())
    assert summary["prior"] == json.loads(infection.with_suffix(".json").read_text())["sha256"]
    assert summary["figures"]["consolidation"]["case"]["dice"]["n"] == 2
    assert len(list((tables / "priors").glob("*/case_0[02].nii.gz"))) == 2

    # As users do: infection first, then its classes.
    words = ["classify", str(dataset / "images" / "case_00.nii.gz"), str(tmp_path / "out"), "--device", "cpu"]
    words += ["--weights", str(infection), "--class_weights", str(tmp_path / "run" / "model.pt")]
    done = run_command(*words)
    assert done.stderr.splitlines()[-1].startswith("DEMONSTRATION WEIGHTS")
    assert done.stdout.startswith("infection: ")
    assert set(np.unique(np.asarray(nib.load(tmp_path / "out" / "classes.nii.gz").dataobj))) <= {0, 1, 2}

    again = run_bundle("evaluation", EVALUATE, ok=False, output_dir=tables, prior="truth", **found)
    assert "holds results already (classes.csv, summary.json)" in again.stderr.splitlines()[-1]


@pytest.mark.slow
def test_resumed_equals_uninterrupted(make_class_dataset: Callable[..., Path], make_checkpoint, tmp_path: Path) -> None:
    """With predictions for a prior, augmentation and dropout."""
    infection = make_checkpoint(tmp_path / "infection.pt", size=32)
    settings = {**SMALL, "dataset_dir": make_class_dataset(), "augment": "true", "network_def#dropout": 0.2}
    run_bundle("training", TRAIN, output_dir=tmp_path / "whole", max_epochs=2, prior=infection, **settings)
    broken = {"output_dir": tmp_path / "broken", **settings}
    run_bundle("training", TRAIN, max_epochs=1, prior=infection, **broken)
    other = run_bundle("training", TRAIN, ok=False, max_epochs=2, prior="truth", resume="true", **broken)
    assert "began with other settings (preprocessing)" in other.stderr.splitlines()[-1]
    run_bundle("training", TRAIN, max_epochs=2, prior=infection, resume="true", **broken)
    whole, resumed = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "broken"))
    assert all(torch.equal(value, resumed["network"][key]) for key, value in whole["network"].items())
    assert (tmp_path / "whole" / "model.pt").read_bytes() == (tmp_path / "broken" / "model.pt").read_bytes()
