"""Every workflow of the bundle on a device that cannot be read from the host,
and on CUDA where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from scripts import precision
from scripts.inference.backends import choice
from scripts.networks.resunet.resunet import ResUNet
from scripts.research.workflows import run_workflow
from tests.bundle_runner import NARROW

TRAIN = "configs/train.yaml"
INFERENCE = "configs/inference.yaml"

MakeDataset = Callable[..., Path]


def trained(device: str, run: Path, dataset: Path, *layers: str, **settings: Any) -> pd.DataFrame:
    """Trains on a device; returns the curve."""
    own = {**NARROW, "dataset_dir": str(dataset), "output_dir": str(run), "device": device, **settings}
    run_workflow([TRAIN, *layers], **own)
    return pd.read_csv(run / "history.csv").drop(columns="seconds")


def masks(device: str, scans: Path, weights: Path, out: Path, **settings: Any) -> list[np.ndarray]:
    """The masks of `run inference`, by name."""
    own = {"dataset_dir": str(scans), "checkpoint": str(weights), "output_dir": str(out), "device": device}
    run_workflow([INFERENCE], **own, **settings)
    return [np.asarray(nib.load(path).dataobj) for path in sorted(out.iterdir())]


def evaluated(device: str, dataset: Path, weights: Path, out: Path, *layers: str, **settings: Any) -> Path:
    """The folder of the tables of `run evaluation`."""
    own = {"dataset_dir": str(dataset), "checkpoint": str(weights), "output_dir": str(out), "device": device}
    run_workflow([TRAIN, "configs/evaluate.yaml", *layers], **own, **settings)
    return out


def assert_same_masks(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Kernels of another device may round otherwise;
    of some voxels in ten thousand the side may change."""
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert 0 < other.mean() < 1
        assert np.mean(one != other) < 5e-4


def test_training(device: str, make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = make_dataset()
    settings = {"augment": True, "weight_average": 0.2, "network_def#dropout": 0.0, "amp": False}
    expected = trained("cpu", tmp_path / "cpu", dataset, **settings)
    found = trained(device, tmp_path / "run", dataset, **settings)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    "settings", [{}, {"smallest_lesion_mm3": 20}, {"test_time_flips": True, "threshold": 0.568}], ids=str
)
def test_inference(
    device: str, settings: dict[str, object], make_dataset: MakeDataset, weights: Path, tmp_path: Path
) -> None:
    scans = make_dataset(cases=2) / "images"
    expected = masks("cpu", scans, weights, tmp_path / "cpu", **settings)
    assert_same_masks(masks(device, scans, weights, tmp_path / "masks", **settings), expected)


def test_evaluation(device: str, make_dataset: MakeDataset, weights: Path, tmp_path: Path) -> None:
    dataset, tables = make_dataset(), []
    for place in ("cpu", device):
        folder = evaluated(place, dataset, weights, tmp_path / place[:3], fold=0, voxel_size_known=True)
        tables.append(pd.read_csv(folder / "metrics.csv"))
    pd.testing.assert_frame_equal(tables[1], tables[0], rtol=1e-3)


def test_volumes(device: str, make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset, run = make_dataset(cases=2), tmp_path / "run"
    small = {"patch_size": [16, 16, 4], "patches_per_volume": 4, "val_interval": 1, "max_epochs": 1}
    trained(device, run, dataset, "configs/networks/fv_paspp_unet3d.yaml", **small)
    evaluated(device, dataset, run / "model.pt", tmp_path / "tables", fold=0)
    expected = masks("cpu", dataset / "images", run / "model.pt", tmp_path / "cpu")
    found = masks(device, dataset / "images", run / "model.pt", tmp_path / "masks")
    for one, other in zip(found, expected, strict=True):
        assert np.mean(one != other) < 5e-4


def test_classes(device: str, make_class_dataset: MakeDataset, weights: Path, tmp_path: Path) -> None:
    dataset, run = make_class_dataset(), tmp_path / "run"
    trained(device, run, dataset, "configs/multiclass.yaml", prior=str(weights), max_epochs=1)
    layer = "configs/evaluate_multiclass.yaml"
    tables = evaluated(device, dataset, run / "model.pt", tmp_path / "tables", layer, prior=str(weights), fold=0)
    assert len(pd.read_csv(tables / "classes.csv")) == 4


@pytest.mark.parametrize("able", [True, False])
def test_mixed_precision_of_inference_on_a_cpu_is_bfloat16(
    able: bool, make_dataset: MakeDataset, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In `run inference` and in `run evaluation`; a CPU that would emulate it stays at float32."""
    monkeypatch.setattr(choice, "mixed_precision", precision.mixed_precision)  # as it is outside of the tests
    monkeypatch.setattr(precision, "_capabilities", lambda: {"architecture": "x86_64", "avx512_bf16": able})
    seen, forward = set(), ResUNet.forward

    def watched(self: ResUNet, image: torch.Tensor) -> torch.Tensor:
        out = forward(self, image)
        seen.add(out.dtype)
        return out

    monkeypatch.setattr(ResUNet, "forward", watched)
    dataset, expected = make_dataset(), {torch.bfloat16 if able else torch.float32}
    masks("cpu", dataset / "images", weights, tmp_path / "masks", amp=True)
    assert seen == expected
    seen.clear()
    evaluated("cpu", dataset, weights, tmp_path / "tables", fold=0, amp=True)
    assert seen == expected
