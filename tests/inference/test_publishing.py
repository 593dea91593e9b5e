"""Weights for a repository: half the size and the same masks, or as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.errors import UserError
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.metadata import read_metadata, write_checkpoint
from scripts.inference.publishing import publish
from scripts.inference.segmenter import Segmenter
from scripts.io.reading import read_scan
from scripts.research.workflows import train_once

CPU = torch.device("cpu")


def test_half_the_size_and_the_same_masks_or_as_they_are(
    make_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, settings = make_dataset(cases=2, folds=2), {"spatial_size": 32, "max_epochs": 1, "network_def#base_width": 8}
    trained = train_once(["configs/train.yaml"], tmp_path / "run", dataset_dir=str(data), device="cpu", **settings)
    metadata = {key: value for key, value in read_metadata(trained).items() if key not in ("format", "sha256")}
    state = torch.load(trained, weights_only=True)
    state["out.weight"] *= 50  # it learnt nothing: far apart, that rounding does not bring many across the threshold
    weights, target = tmp_path / "whole.pt", tmp_path / "models" / "model.pt"
    write_checkpoint(weights, state, **metadata)
    scan = read_scan(next((data / "images").glob("*.nii*")))
    maps = Segmenter(weights, "cpu").segment(scan, HounsfieldSlices(scan), probability=True).probability
    metadata["operating_point"]["threshold"] = (float(np.median(maps)) + 0.5) / 255
    write_checkpoint(weights, state, **metadata)
    monkeypatch.setattr("scripts.inference.publishing.MOST_CHANGED_VOXELS", 0.01)
    monkeypatch.setattr("scripts.inference.publishing.MOST_CHANGED_DICE", 0.01)

    changed = publish(weights, target, str(data), CPU)
    assert changed["voxels"] <= 0.01
    assert target.stat().st_size < 0.6 * weights.stat().st_size
    published = read_metadata(target)
    assert {key: published[key] for key in metadata} == metadata
    assert published["sha256"] != read_metadata(weights)["sha256"]
    before, after = (Segmenter(one, "cpu").segment(scan, HounsfieldSlices(scan)).mask for one in (weights, target))
    assert 0.2 < before.mean() < 0.8
    assert np.mean(before != after) <= 0.01
    with pytest.raises(UserError, match=r"model\.pt: exists"):
        publish(weights, target, str(data), CPU)

    (tmp_path / "other.json").write_text("of another model")
    for name, found in (("other.pt", r"other\.json: exists"), ("other.pth", "expected: a new file with the suffix")):
        with pytest.raises(UserError, match=found):
            publish(weights, tmp_path / name, str(data), CPU)
    assert (tmp_path / "other.json").read_text() == "of another model"

    beside = target.with_name("full.pt")
    monkeypatch.setattr("scripts.inference.publishing.MOST_MB", 1.5 * target.stat().st_size / 2**20)
    with pytest.raises(UserError, match=r"full\.pt: .* with model\.pt beside it make .*; expected: at most"):
        publish(weights, beside, str(data), CPU)
    assert sorted(path.name for path in target.parent.iterdir()) == ["model.json", "model.pt"]
    monkeypatch.setattr("scripts.inference.publishing.MOST_MB", 2.5 * target.stat().st_size / 2**20)
    with monkeypatch.context() as changes:  # too much for half precision
        changes.setattr("scripts.inference.publishing.MOST_CHANGED_VOXELS", -1)
        with pytest.raises(UserError, match=r"expected: at most"):
            publish(weights, beside, str(data), CPU)
    assert not beside.exists()
    publish(weights, beside, str(data), CPU)
    assert beside.stat().st_size < 0.6 * weights.stat().st_size

    monkeypatch.setattr("scripts.inference.publishing._half", lambda value: value.cpu() * (value.ndim < 2))
    broken = publish(weights, tmp_path / "whole" / "model.pt", str(data), CPU)
    assert broken["voxels"] > 0.2
    whole = torch.load(tmp_path / "whole" / "model.pt", weights_only=True)
    assert all(torch.equal(whole[key], value) for key, value in state.items())
