"""Every network's overlay, with the CPU preset after it: the network it names,
and a loss that takes its maps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from scripts.networks.registry import all_networks, create_network

OVERLAYS = sorted(Path(__file__).resolve().parents[2].glob("configs/networks/*.yaml"))


def test_every_network_has_an_overlay() -> None:
    elsewhere = {"resunet", "mc_unet"}  # train.yaml itself, and the stage that tells classes apart
    assert {*elsewhere, *(path.stem for path in OVERLAYS)} == set(all_networks())


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_overlay(overlay: Path, bundle_root: Path) -> None:
    parser = ConfigParser()
    parser.read_config([bundle_root / "configs" / "train.yaml", overlay, bundle_root / "configs/presets/cpu.yaml"])
    assert parser["network_def#base_width"] == 16
    parser["network_def#base_width"] = 4
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def").train()
    assert network.spec["name"] == overlay.stem
    loss = parser.get_parsed_content("loss")
    volume = overlay.stem.endswith("3d")
    size, targets = ((96, 96, 8), 1) if volume else ((192, 192), 2)
    logits = network(torch.randn(2, 1, *size))
    assert logits.shape[1] == 1 + getattr(network, "edge_heads", 0) + getattr(network, "mask_heads", 0)
    label = torch.ones(2, targets, *size)
    training, validation = loss(logits, label), loss(logits[:, :1], label)
    assert 0 < training < 100
    assert 0 < validation < 100  # of the main map alone


def test_the_documents_state_the_parameters_of_the_overlays(bundle_root: Path) -> None:
    text = (bundle_root / "docs/training.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([\d,]{9,}) \|", text, flags=re.MULTILINE))
    assert len(stated) == 17
    for name, parameters in stated.items():
        settings = ConfigParser.load_config_file(bundle_root / f"configs/networks/{name}.yaml")["network_def"]
        with torch.device("meta"):  # shapes alone
            network = create_network(**{key: value for key, value in settings.items() if key != "_target_"})
        assert f"{sum(one.numel() for one in network.parameters()):,}" == parameters, name
