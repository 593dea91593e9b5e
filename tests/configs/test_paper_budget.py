"""The paper's recipe as a budget: the same optimizer, schedule and slices for every network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from scripts.training.schedule import PlateauSchedule

BUDGETS = ("paper", "experiment_cpu", "experiment_gpu", "experiment_gpu_short")
NETWORKS = (None, "unet", "infnet", "cares_unet")  # the last two have schedules of their own


def parse(bundle_root: Path, dataset: Path, budget: str, network: str | None, **settings: object) -> ConfigParser:
    files = ["train.yaml", *([f"networks/{network}.yaml"] if network else []), f"presets/{budget}.yaml"]
    parser = ConfigParser()
    parser.read_config([bundle_root / "configs" / file for file in files])
    own = {"bundle_root": str(bundle_root), "dataset_dir": str(dataset), "device": "cpu", "cache_dir": None}
    parser.update({**own, "output_dir": "run", "network_def#base_width": 4, **settings})
    return parser


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_has_the_papers_recipe(bundle_root: Path, make_dataset, network: str | None) -> None:
    parser = parse(bundle_root, make_dataset(), "paper", network)
    optimizer, schedule = (parser.get_parsed_content(key) for key in ("optimizer", "train#schedule"))
    assert type(optimizer) is torch.optim.Adam
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (1e-4, 0)
    assert isinstance(schedule, PlateauSchedule)
    plateau = schedule.plateau
    assert (plateau.monitor, plateau.factor, plateau.cut_after, plateau.stop_after) == ("val_loss", 0.5, 25, 25)
    assert parser.get_parsed_content("train#checkpoint").objects["schedule"] is schedule
    data = parser.get_parsed_content("train#dataset")
    assert len(data) == len(data._table)  # an epoch is all slices
    transform = parser.get_parsed_content("train#preprocessing")
    assert torch.equal(*(transform(_slice())["image"] for _ in range(2)))  # nothing is drawn
    found = {key: parser[key] for key in ("spatial_size", "batch_size", "val_interval", "keep")}
    assert found == {"spatial_size": 256, "batch_size": 8, "val_interval": 1, "keep": "best"}


def _slice() -> dict[str, torch.Tensor]:
    hu = torch.linspace(-1000, 200, 64 * 64).reshape(1, 64, 64)
    return {"image": hu, "label": (hu > 0).float()}


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("network", [None, "cares_unet"])
def test_weight_decay_is_one_id(bundle_root: Path, make_dataset, budget: str, network: str | None) -> None:
    parser = parse(bundle_root, make_dataset(), budget, network, weight_decay=0.01)
    (group,) = parser.get_parsed_content("optimizer").param_groups
    assert group["weight_decay"] == 0.01


def test_the_networks_own_optimizers_take_it_too(bundle_root: Path) -> None:
    for overlay in ("networks/cares_unet.yaml", "multiclass.yaml"):
        parser = ConfigParser()
        parser.read_config([bundle_root / "configs" / file for file in ("train.yaml", overlay)])
        parser.update({"bundle_root": ".", "device": "cpu", "network_def#base_width": 4, "weight_decay": 0.02})
        assert parser.get_parsed_content("optimizer").param_groups[0]["weight_decay"] == 0.02
