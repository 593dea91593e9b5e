"""Networks that a configuration names by `_target_`: trained, evaluated,
applied and published like any other."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from scripts.errors import UserError
from scripts.inference.building import trained_network
from scripts.research.workflows import run_workflow
from tests.bundle_runner import run_bundle_process

TRAIN = "configs/train.yaml"
RESUNET = {"_target_": "scripts.networks.resunet.resunet.ResUNet", "base_width": 4, "edge_stages": [1], "dropout": 0.1}
BASIC = {
    "_target_": "monai.networks.nets.BasicUNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 1,
    "features": [4, 4, 8, 8, 8, 4],
}
SETTINGS = {"spatial_size": 32, "batch_size": 4, "max_epochs": 1, "device": "cpu"}


def spec(definition: dict[str, Any], monkeypatch: pytest.MonkeyPatch, bundle_root: Path) -> dict[str, Any]:
    """What the metadata of a training with that network would say."""
    monkeypatch.chdir(bundle_root)
    parser = ConfigParser()
    parser.read_config([TRAIN])
    parser["network_def"], parser["width"] = definition, 8
    found: dict[str, Any] = parser.get_parsed_content("checkpoint_metadata#network")
    return found


def test_the_metadata_have_the_arguments_as_given(bundle_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {key: value for key, value in RESUNET.items() if key != "_target_"}
    assert spec(RESUNET, monkeypatch, bundle_root) == {"name": "resunet", "arguments": arguments}
    referring = {**BASIC, "features": "$[4, 4, @width, @width, 8, 4]"}
    assert spec(referring, monkeypatch, bundle_root) == {
        "name": "monai.networks.nets.BasicUNet",
        "arguments": {key: value for key, value in BASIC.items() if key != "_target_"},
    }
    with pytest.raises((UserError, RuntimeError)) as caught:
        spec(
            {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 1},
            monkeypatch,
            bundle_root,
        )
    assert "expected: a network with @register" in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize("definition", [RESUNET, BASIC], ids=["resunet", "monai"])
def test_train_evaluate_infer(definition: dict[str, Any], make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    overlay = tmp_path / "network.yaml"
    overlay.write_text(yaml.safe_dump({"network_def": definition}))
    dataset, weights = make_dataset(cases=2), tmp_path / "run" / "model.pt"
    run_workflow([TRAIN, str(overlay)], dataset_dir=str(dataset), output_dir=str(weights.parent), **SETTINGS)
    network, metadata = trained_network(weights, torch.device("cpu"))
    assert type(network).__name__ == definition["_target_"].rsplit(".", 1)[1]
    common = {"checkpoint": str(weights), "device": "cpu"}
    tables, masks = tmp_path / "tables", tmp_path / "masks"
    run_workflow([TRAIN, "configs/evaluate.yaml"], dataset_dir=str(dataset), output_dir=str(tables), **common)
    run_workflow(["configs/inference.yaml"], dataset_dir=str(dataset / "images"), output_dir=str(masks), **common)
    row = pd.read_csv(tables / "metrics.csv").iloc[0]
    mask = np.asarray(nib.load(masks / f"{row['case']}_infection.nii.gz").dataobj)
    assert row["predicted"] == mask.sum()
    assert json.loads((tables / "summary.json").read_text())["network"] == metadata["network"]


@pytest.mark.slow
def test_the_documented_network(make_dataset: Callable[..., Path], bundle_root: Path, tmp_path: Path) -> None:
    """The example of docs/training.md, in a copy of the bundle: a file, an overlay, a training."""
    text = (bundle_root / "docs/training.md").read_text(encoding="utf-8")
    section = text[text.index("### A network of your own") :]
    program, overlay = (re.search(rf"```{kind}\n(.*?)```", section, re.S)[1] for kind in ("python", "yaml"))  # type: ignore[index]
    bundle = tmp_path / "bundle"
    for name in ("scripts", "configs"):
        shutil.copytree(bundle_root / name, bundle / name, ignore=shutil.ignore_patterns("__pycache__"))
    (bundle / "scripts/networks/plain_net.py").write_text(program)
    (bundle / "configs/networks/plain_net.yaml").write_text(overlay)
    config = f"['{TRAIN}','configs/networks/plain_net.yaml']"
    out = tmp_path / "run"
    run_bundle_process("training", config, cwd=bundle, dataset_dir=make_dataset(cases=2), output_dir=out, **SETTINGS)
    metadata = json.loads((out / "model.json").read_text())
    assert metadata["network"] == {"name": "plain_net", "arguments": {"width": 16}}
