"""The commands for scans on a device that cannot be read from the host,
and on CUDA where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.inferer import BATCH_SIZE
from scripts.inference.metadata import write_checkpoint
from scripts.inference.segmenter import Segmentation, Segmenter
from scripts.io.reading import read_scan
from scripts.networks.registry import create_network
from scripts.research.classify import Classifier
from tests import refusing_device

OOD = {"familiarity": {"layer": "out", "mean": [0.0], "sd": [1.0], "limit": 1e9}}


@pytest.fixture(scope="module")
def class_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a multi-class network."""
    torch.manual_seed(0)
    network = create_network("mc_unet", base_width=4)
    preprocessing = {"size": 64, "window": [-1250, 250], "intensity": "auto", "prior": "truth"}
    path = tmp_path_factory.mktemp("classes") / "classes.pt"
    data = {"name": "phantom", "synthetic": True}
    write_checkpoint(
        path, network.state_dict(), network=network.spec, preprocessing=preprocessing, data=data, figures={}
    )
    return path


def segmented(weights: Path, path: Path, device: str) -> Segmentation:
    scan = read_scan(path)
    return Segmenter(weights, device, smallest_lesion_mm3=20).segment(scan, HounsfieldSlices(scan), probability=True)


def test_segment(device: str, make_checkpoint: Callable[..., Path], make_scan, tmp_path: Path) -> None:
    path, _ = make_scan()
    weights = make_checkpoint(tmp_path / "model.pt", **OOD)
    expected = segmented(weights, path, "cpu")
    assert 0 < expected.mask.mean() < 1
    with refusing_device.counting() as reads:
        found = segmented(weights, path, device)
    assert np.mean(found.mask != expected.mask) < 5e-4
    assert np.abs(found.probability.astype(int) - expected.probability).max() <= 1
    assert found.ood_score == pytest.approx(expected.ood_score, rel=1e-4)
    batches = -(-found.mask.shape[2] // BATCH_SIZE)
    assert reads["values"] == 0
    assert reads["copies"] <= 2 * batches  # probabilities and features, once a batch


def test_classify(device: str, weights: Path, class_weights: Path, make_scan) -> None:
    path, _ = make_scan()
    scan = read_scan(path)
    slices, infection = HounsfieldSlices(scan), segmented(weights, path, "cpu")
    expected = Classifier(class_weights, "cpu").classify(scan, slices, infection)
    found = Classifier(class_weights, device).classify(scan, slices, infection)
    assert np.mean(found != expected) < 5e-4
