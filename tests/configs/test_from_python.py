"""The bundle as a Python program uses it through MONAI, from any folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigParser, create_workflow
from torch import nn

from scripts.inference.building import trained_network


def test_the_json_is_the_yaml(bundle_root: Path) -> None:
    # The command that writes it anew stands in CONTRIBUTING.md.
    configs = bundle_root / "configs"
    yaml, json = (ConfigParser.load_config_file(configs / f"inference.{kind}") for kind in ("yaml", "json"))
    assert json == yaml


def load(bundle_root: Path, **options: object) -> object:
    return monai.bundle.load(bundle_root.name, bundle_dir=str(bundle_root.parent), device="cpu", **options)


def test_load_returns_the_network_with_its_weights_from_any_folder(
    bundle_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = load(bundle_root, workflow_type="inference")
    assert isinstance(network, nn.Module)
    expected, metadata = trained_network(bundle_root / "models/model.pt", torch.device("cpu"))
    size = metadata["preprocessing"]["size"]
    images = torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images), expected(images), rtol=0, atol=1e-4)
    heads = load(bundle_root, workflow_type="inference", net_override={"deep_supervision": True})
    assert isinstance(heads, nn.Module)
    assert heads.train()(torch.randn(2, 1, 64, 64)).shape[1] > 1  # main map and heads: ready to be trained on


def test_create_workflow_segments_from_another_folder(
    make_scan: Callable[..., tuple[Path, Path]],
    weights: Path,
    bundle_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    scan, _ = make_scan()
    flow = create_workflow(
        config_file=str(bundle_root / "configs/inference.yaml"),
        workflow_type="inference",
        dataset_dir=str(scan),
        checkpoint=str(weights),
        output_dir=str(tmp_path / "masks"),
        device="cpu",
    )
    assert flow.check_properties() == []
    assert flow.bundle_root == str(bundle_root)
    flow.run()
    flow.finalize()
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["scan_infection.nii.gz"]
    assert list(elsewhere.iterdir()) == []


def test_without_the_folder_on_the_path_the_error_says_so(bundle_root: Path, tmp_path: Path) -> None:
    program = f"import monai.bundle as m; m.load({bundle_root.name!r}, bundle_dir={str(bundle_root.parent)!r}"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program + ", workflow_type='inference')"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    end = done.stderr.splitlines()[-1]
    assert re.search(r"function path: 'scripts\.\w+", end)
