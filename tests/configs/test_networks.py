"""Every network's overlay, with the CPU preset after it: the network it names, and a loss that takes its maps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from scripts.networks.registry import NETWORKS

OVERLAYS = sorted(Path(__file__).resolve().parents[2].glob("configs/networks/*.yaml"))


def test_every_network_has_an_overlay() -> None:
    # The ResUNet is in train.yaml itself, the network of classes in multiclass.yaml.
    assert {"resunet", "mc_unet", *(path.stem for path in OVERLAYS)} == set(NETWORKS)


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
    logits = network(torch.randn(2, 1, 192, 192))
    assert logits.shape[1] == 1 + loss.edge_heads + loss.mask_heads
    assert 0 < loss(logits, torch.ones(2, 2, 192, 192)).item() < logits.shape[1]
    assert 0 < loss(logits[:, :1], torch.ones(2, 2, 192, 192)).item() < 1
