"""Weights for a repository: half the size and the same masks, or refused."""

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


def test_half_the_size_the_same_masks_or_refused(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
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

    logit = torch.tensor(0.10012)  # half precision holds its neighbours only; the threshold lies between
    flat = {"out.weight": 0 * state["out.weight"], "out.bias": torch.full_like(state["out.bias"], float(logit))}
    card["operating_point"]["threshold"] = float(torch.sigmoid((logit + logit.half()) / 2))
    write_checkpoint(weights, {**state, **flat}, **card)
    with pytest.raises(
        UserError, match=r"half precision changes up to \d+\.\d+% of the voxels and .*; accepted: 0.01%"
    ):
        publish(weights, tmp_path / "models" / "other.pt", str(data), CPU)
    assert [path.name for path in sorted(target.parent.iterdir())] == ["model.json", "model.pt"]
