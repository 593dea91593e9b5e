"""Weights for a repository: half the size and the same masks, or as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.cards import read_card, write_checkpoint
from scripts.errors import UserError
from scripts.scan.reading import read_scan
from scripts.scan.segmenter import HounsfieldSlices, Segmenter
from scripts.training.publishing import publish
from scripts.training.workflows import train_once

CPU = torch.device("cpu")


def test_half_the_size_and_the_same_masks_or_as_they_are(
    make_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, settings = make_dataset(cases=2, folds=2), {"spatial_size": 32, "max_epochs": 1, "network_def#base_width": 8}
    trained = train_once(["configs/train.yaml"], tmp_path / "run", dataset_dir=str(data), device="cpu", **settings)
    card = {key: value for key, value in read_card(trained).items() if key not in ("format", "sha256")}
    card["operating_point"]["threshold"] = 0.3  # far from what a network that learnt nothing says of any voxel
    state = torch.load(trained, weights_only=True)
    weights, target = tmp_path / "whole.pt", tmp_path / "models" / "model.pt"
    write_checkpoint(weights, state, **card)

    changed = publish(weights, target, str(data), CPU)
    assert changed["voxels"] <= 1e-4
    assert target.stat().st_size < 0.6 * weights.stat().st_size
    published = read_card(target)
    assert {key: published[key] for key in card} == card
    assert published["sha256"] != read_card(weights)["sha256"]
    scan = read_scan(next((data / "images").glob("*.nii*")))
    before, after = (Segmenter(one, "cpu").segment(scan, HounsfieldSlices(scan)).mask for one in (weights, target))
    assert np.mean(before != after) <= 1e-4
    with pytest.raises(UserError, match=r"model\.pt: exists; accepted: a new file"):
        publish(weights, target, str(data), CPU)

    monkeypatch.setattr("scripts.training.publishing.MOST_CHANGED_VOXELS", -1.0)  # whatever half precision changes
    publish(weights, tmp_path / "whole" / "model.pt", str(data), CPU)
    whole = torch.load(tmp_path / "whole" / "model.pt", weights_only=True)
    assert all(torch.equal(whole[key], value) for key, value in state.items())
