"""The overlay of CARes-UNet, alone and under the CPU preset."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from scripts.losses.dice_cross_entropy import DiceCrossEntropyLoss
from scripts.networks.cares_unet import CAResUNet
from scripts.training.ranger import Ranger
from tests.bundle_runner import NARROW, run_bundle

OVERLAYS = ["configs/train.yaml", "configs/networks/cares_unet.yaml"]
CPU = [*OVERLAYS, "configs/presets/cpu.yaml"]

Parse = Callable[..., ConfigParser]


@pytest.fixture
def parse(bundle_root: Path, make_dataset: Callable[..., Path], tmp_path: Path) -> Parse:
    """Reads configuration files as `monai.bundle run` does,
    with a small data set and settings on top."""

    def read(files: list[str], **settings: object) -> ConfigParser:
        parser = ConfigParser()
        parser.read_config([bundle_root / file for file in files])
        parser.update({"dataset_dir": str(make_dataset()), "output_dir": str(tmp_path / "run"), "device": "cpu"})
        parser.update(settings)
        return parser

    return read


def test_the_overlay_is_the_papers_training(parse: Parse) -> None:
    parser = parse(OVERLAYS, **{"network_def#base_width": 4})
    network, loss, optimizer = (parser.get_parsed_content(key) for key in ("network_def", "loss", "optimizer"))
    assert isinstance(network, CAResUNet)
    assert isinstance(loss, DiceCrossEntropyLoss)
    assert isinstance(optimizer, Ranger)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == len(list(network.parameters()))
    found = {**group, "betas": tuple(group["betas"])}
    assert found.items() >= {"lr": 5e-4, "betas": (0.95, 0.999), "eps": 1e-5, "k": 6, "alpha": 0.5}.items()
    assert (parser["batch_size"], parser["max_epochs"]) == (4, 1200)


def test_the_rate_falls_to_a_tenth_every_30_epochs_past_800(parse: Parse) -> None:
    """810, 840, ... 1200: 14 times."""
    parser = parse(OVERLAYS, **{"network_def#base_width": 4})
    scheduler, optimizer = parser.get_parsed_content("lr_scheduler"), parser.get_parsed_content("optimizer")
    assert sorted(scheduler.milestones) == [810 + 30 * n for n in range(14)]
    rates = []
    for _ in range(1200):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:810] == [5e-4] * 810
    assert rates[810:840] == pytest.approx([5e-5] * 30)
    assert rates[900] == pytest.approx(5e-8)
    assert rates[-1] == pytest.approx(5e-4 * 0.1**13)
    file = io.BytesIO()
    torch.save(scheduler.state_dict(), file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == scheduler.state_dict()


def test_the_rate_falls_in_a_run_that_was_prolonged(parse: Parse) -> None:
    """`last.pt` holds the epochs of the cuts, those of a run that was to have 800 epochs too."""
    short, long = (parse(OVERLAYS, **{"network_def#base_width": 4, "max_epochs": epochs}) for epochs in (800, 1200))
    scheduler, optimizer = long.get_parsed_content("lr_scheduler"), long.get_parsed_content("optimizer")
    scheduler.load_state_dict(short.get_parsed_content("lr_scheduler").state_dict())
    for _ in range(810):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(5e-5)


def test_a_preset_replaces_width_and_schedule_and_keeps_the_rest(parse: Parse) -> None:
    parser = parse(CPU, max_epochs=3)
    network, optimizer = parser.get_parsed_content("network_def"), parser.get_parsed_content("optimizer")
    assert network.spec["arguments"]["base_width"] == 16
    assert isinstance(optimizer, Ranger)
    assert isinstance(parser.get_parsed_content("loss"), DiceCrossEntropyLoss)
    scheduler = parser.get_parsed_content("train#schedule")
    assert isinstance(scheduler, torch.optim.lr_scheduler.OneCycleLR)
    assert scheduler.total_steps == 3 * len(parser.get_parsed_content("train#dataloader"))
    assert parser.get_parsed_content("train#checkpoint").objects["schedule"] is scheduler
    assert parser.get_parsed_content("train#checkpoint").objects["optimizer"] is optimizer


def test_training_under_the_cpu_preset(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_bundle("training", str(CPU), dataset_dir=make_dataset(), output_dir=run, **NARROW)
    rows = list(csv.DictReader((run / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["train_loss"]) > 0 for row in rows)
    metadata = json.loads((run / "model.json").read_text())
    assert metadata["network"] == {
        "name": "cares_unet",
        "arguments": {"in_channels": 1, "base_width": 4, "dropout": 0.0, "residual": True, "upsampling": "carafe"},
    }
    last = torch.load(run / "last.pt", weights_only=True)
    assert last["epoch"] == 2
    assert set(last["optimizer"]["state"][0]) == {"step", "exp_avg", "exp_avg_sq", "slow"}
