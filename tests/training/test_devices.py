"""What trains many times or applies trained weights,
on a device that cannot be read from the host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from scripts.inference.calibration import calibrate
from scripts.inference.publishing import publish
from scripts.research.experiment_config import read_experiment
from scripts.research.experiments import run_experiment
from scripts.research.workflows import run_workflow, train_once
from scripts.version import BUNDLE
from tests import refusing_device

SMALL = {"network_def#base_width": 4, "spatial_size": 32, "batch_size": 4, "learning_rate": 0.01}


def test_calibrate_and_publish(device: str, make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    data, found = make_dataset(), []
    settings = {**SMALL, "max_epochs": 1, "fold": 0, "dataset_dir": str(data)}
    weights = train_once(["configs/train.yaml"], tmp_path / "run", device="cpu", **settings)
    for place in ("cpu", device):
        found.append(calibrate(weights, str(data), [], True, 9, torch.device(place)))
    for key in ("threshold", "least_slice_share"):
        assert found[1]["operating_point"][key] == pytest.approx(found[0]["operating_point"][key], abs=0.01)
    assert found[1]["familiarity"]["limit"] == pytest.approx(found[0]["familiarity"]["limit"], rel=0.01)
    assert publish(weights, tmp_path / "new.pt", str(data), torch.device(device))["dice"] < 0.1


def test_experiment(device: str, make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    content = yaml.safe_load((BUNDLE / "configs/presets/experiment_cpu.yaml").read_text())
    content |= {"spatial_size": 32, "batch_size": 4, "max_epochs": 1, "val_interval": 1, "network_def#base_width": 4}
    budget = tmp_path / "budget.yaml"
    budget.write_text(yaml.safe_dump(content))
    chosen = read_experiment("table4", ["baseline"])
    table = run_experiment(
        chosen, str(make_dataset(folds=2)), str(tmp_path / "out"), [str(budget)], folds=[0], steps=2, device=device
    )
    assert "baseline" in table.read_text()


def test_a_step_reads_few_values(device: str, make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    """The loss, for TensorBoard and the check that it is finite;
    a resumed optimizer counts its steps on the host."""
    settings = {**SMALL, "dataset_dir": str(make_dataset()), "validate#dataset#data": [], "device": device}
    for epochs in (1, 2):  # the second resumes
        with refusing_device.counting() as reads:
            run_workflow(["configs/train.yaml"], output_dir=str(tmp_path), resume=True, max_epochs=epochs, **settings)
        assert reads["values"] <= 2 * 3  # three steps an epoch
