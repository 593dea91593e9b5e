"""The overlay of Inf-Net: what it trains with, and that a resumed run ends like a whole one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser

from scripts.errors import find_user_error
from scripts.losses.structure import InfNetLoss
from scripts.networks.infnet.infnet import InfNet
from scripts.training.multi_scale import MultiScaleTrainer
from tests.bundle_runner import run_bundle

OVERLAY = "configs/networks/infnet.yaml"
CONFIG = f"['configs/train.yaml','{OVERLAY}']"
SMALL = {"network_def#base_width": 4, "spatial_size": 96, "batch_size": 4, "device": "cpu"}


def parser(dataset: Path, output: Path, *overlays: str) -> ConfigParser:
    found = ConfigParser()
    found.read_config(["configs/train.yaml", OVERLAY, *overlays])
    for key, value in {**SMALL, "dataset_dir": str(dataset), "output_dir": str(output)}.items():
        found[key] = value
    return found


@pytest.fixture
def at_root(bundle_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle_root)


@pytest.mark.usefixtures("at_root")
def test_parts(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    found = parser(make_dataset(), tmp_path)
    trainer = found.get_parsed_content("train#trainer")
    assert isinstance(trainer, MultiScaleTrainer)
    assert (trainer.scales, trainer.size_multiple, trainer.clip_value) == ((0.75, 1, 1.25), 32, 0.5)
    assert trainer.state.max_epochs == 100
    assert isinstance(trainer.network, InfNet)
    loss = trainer.loss_function
    assert isinstance(loss, InfNetLoss)
    assert (loss.edge_heads, loss.mask_heads, loss.legacy_bce) == (1, 3, False)
    assert type(trainer.optimizer) is torch.optim.Adam
    assert trainer.optimizer.defaults["betas"] == (0.9, 0.999)
    assert trainer.optimizer.defaults["weight_decay"] == 0
    spec = trainer.network.spec
    assert spec["name"] == "infnet"
    assert set(spec["arguments"]) == {"in_channels", "base_width", "dropout", "backbone", "deep_supervision"}


@pytest.mark.usefixtures("at_root")
def test_learning_rate_is_cut_once_in_a_hundred_epochs(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    """The published code multiplies the current rate by 0.1 at every epoch from the 50th on:
    1e-10 at the 55th."""
    found = parser(make_dataset(), tmp_path)
    optimizer, handler = found.get_parsed_content("optimizer"), found.get_parsed_content("train#schedule")
    rates = []

    def iteration(engine: Engine, _: int) -> None:
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])

    engine = Engine(iteration)
    handler.attach(engine)
    engine.run([0], max_epochs=100)
    assert rates == pytest.approx([1e-4] * 50 + [1e-5] * 50)


@pytest.mark.usefixtures("at_root")
def test_the_preset_for_a_cpu_goes_on_top(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    found = parser(make_dataset(), tmp_path, "configs/presets/cpu.yaml")
    assert isinstance(found.get_parsed_content("train#schedule"), torch.optim.lr_scheduler.OneCycleLR)
    assert isinstance(found.get_parsed_content("train#trainer"), MultiScaleTrainer)


@pytest.mark.slow
def test_resumed_equals_uninterrupted(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    settings = {**SMALL, "dataset_dir": make_dataset(), "augment": "true", "network_def#dropout": 0.2}
    run_bundle("training", CONFIG, output_dir=tmp_path / "whole", max_epochs=3, **settings)
    run_bundle("training", CONFIG, output_dir=tmp_path / "broken", max_epochs=1, **settings)
    run_bundle("training", CONFIG, output_dir=tmp_path / "broken", max_epochs=3, resume="true", **settings)
    whole, resumed = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "broken"))
    assert whole["epoch"] == resumed["epoch"] == 3
    # 2 cases of 6 slices are 3 batches of 4, each used at 3 sizes, in 3 epochs.
    assert {int(state["step"]) for state in whole["optimizer"]["state"].values()} == {27}
    assert whole["iteration"] == resumed["iteration"] == 9
    for name, value in whole["network"].items():
        assert torch.equal(value, resumed["network"][name]), name
    assert [row["train_loss"] for row in whole["history"]["rows"]] == [
        row["train_loss"] for row in resumed["history"]["rows"]
    ]
    assert (tmp_path / "whole" / "model.pt").read_bytes() == (tmp_path / "broken" / "model.pt").read_bytes()
    metadata = json.loads((tmp_path / "broken" / "model.json").read_text())
    assert "imagenet" not in json.dumps(metadata)


@pytest.mark.usefixtures("at_root")
def test_weights_of_another_network_are_refused(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    torch.save({"conv1.0.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "other.pth")
    found = parser(make_dataset(), tmp_path)
    found["imagenet_weights"] = str(tmp_path / "other.pth")
    with pytest.raises(Exception, match="create_pretrained") as failed:
        found.get_parsed_content("network")
    assert str(find_user_error(failed.value)).startswith(f"{tmp_path / 'other.pth'}: entries do not fit")
