"""What MONAI Label does with the bundle's configs,
on a device that cannot be read from the host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from torch import nn

from scripts.monai_label import checkpoints
from scripts.research.workflows import run_workflow
from scripts.transforms.postprocessing import Probabilities
from scripts.version import BUNDLE


def inferred(weights: Path, scan: Path, device: str, train_mode: bool = False, **settings: Any) -> torch.Tensor:
    """The steps of MONAI Label's `BundleInferTask`; epistemic scoring, with dropout,
    stops at probabilities."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs/inference.yaml"))
    parser.update({"bundle_root": str(BUNDLE), "checkpoint": str(weights), "device": device, **settings})
    network = parser.get_parsed_content("network_def").to(torch.device(device))
    network.load_state_dict(torch.load(weights, map_location=torch.device(device), weights_only=True))
    network.train(train_mode)
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
    data = parser.get_parsed_content("preprocessing")({"image": str(scan)})
    with torch.no_grad():
        inputs = data["image"][None].to(torch.device(device))
        data["pred"] = parser.get_parsed_content("inferer")(inputs, network)[0]
    post = [Probabilities()] if train_mode else parser.get_parsed_content("postprocessing").transforms[:1]
    return Compose(post)(data)["pred"]


def test_infer_hands_its_writers_a_mask_on_the_host(
    device: str, weights: Path, make_scan: Callable[..., Any], tmp_path: Path
) -> None:
    scan, _ = make_scan()
    expected, found = (inferred(weights, scan, place, output_dir=str(tmp_path)) for place in ("cpu", device))
    assert found.device.type == "cpu"
    assert 0 < expected.float().mean() < 1
    assert np.mean(found.numpy() != expected.numpy()) < 5e-4


def test_epistemic_scoring(device: str, weights: Path, make_scan: Callable[..., Any]) -> None:
    scan, _ = make_scan()
    settings = {"network_def#dropout": 0.2}
    first, second = (inferred(weights, scan, device, train_mode=True, **settings) for _ in range(2))
    spread = (first - second).abs().max().item()  # as far as MONAI Label goes: entropies of probabilities
    assert 0 < spread < 1


@pytest.mark.parametrize("pretrained", [True, False])
def test_train(pretrained: bool, device: str, weights: Path, make_scan: Callable[..., Any], tmp_path: Path) -> None:
    deployment = tmp_path / "deployment"
    checkpoints.activate(deployment, checkpoints.add(_made(deployment), weights))
    cases = [dict(zip(("image", "label"), map(str, make_scan(f"scan{n}", n)), strict=True)) for n in range(3)]
    small = {"network_def#base_width": 4, "spatial_size": 64, "batch_size": 4, "augment": False}
    run_workflow(
        ["configs/train.yaml", "configs/monai_label.yaml"],
        deployment=str(deployment),
        device=device,
        pretrained=pretrained,
        **{**small, "train#dataset#data": cases[:2], "validate#dataset#data": cases[2:], "max_epochs": 1},
    )
    assert len(checkpoints.names(deployment)) == 2


def _made(deployment: Path) -> Path:
    (deployment / checkpoints.CHECKPOINTS).mkdir(parents=True)
    return deployment
