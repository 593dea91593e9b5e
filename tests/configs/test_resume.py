"""A run that is killed and resumed ends like one that was not."""

from __future__ import annotations

import csv
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts.inference.metadata import read_metadata
from tests import forked
from tests.bundle_runner import NARROW, run_bundle

TRAIN = "configs/train.yaml"


def rows(folder: Path) -> list[dict[str, str]]:
    lines = list(csv.DictReader((folder / "history.csv").open())) if (folder / "history.csv").exists() else []
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def train_and_kill(train: Callable[[], object], folder: Path, epochs: int) -> None:
    """Starts training and kills it without warning at some moment after `epochs` epochs are on the
    disk."""
    said = folder.with_suffix(".txt")
    process = forked.start(train, said)
    deadline = time.monotonic() + 120
    while len(rows(folder)) < epochs:
        assert process.is_alive(), f"the training ended before it was killed: {said.read_text()[-3000:]}"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(int.from_bytes(os.urandom(1)) / 255 * 0.15)  # anywhere in the next epoch
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def curves(folder: Path) -> dict[str, list[int]]:
    """The steps of every curve in TensorBoard's files, as often as they are there."""
    steps: dict[str, list[int]] = {}
    for path in folder.rglob("events.out.tfevents.*"):
        found = EventAccumulator(str(path)).Reload()
        for tag in found.Tags()["scalars"]:
            steps.setdefault(tag, []).extend(event.step for event in found.Scalars(tag))
    return {tag: sorted(found) for tag, found in steps.items()}


@pytest.mark.parametrize(
    ("config", "save_interval", "amp"),
    [
        pytest.param(TRAIN, 0, "true", marks=pytest.mark.slow),  # bfloat16 where the processor has it
        (TRAIN, 600, "false"),  # every process leaves its first epoch on the disk, and is killed before another write
        pytest.param(f"['{TRAIN}','configs/presets/cpu.yaml']", 0, "false", marks=pytest.mark.slow),
    ],
)
def test_killed_twice_and_resumed_equals_uninterrupted(
    config: str,
    save_interval: int,
    amp: str,
    make_dataset: Callable[..., Path],
    tmp_path: Path,
) -> None:
    settings = {
        **NARROW,
        "dataset_dir": make_dataset(cases=4, shape=(40, 36, 12)),
        "max_epochs": 9,
        "augment": "true",
        "sampling": "balanced",
        "network_def#dropout": 0.2,
        "amp": amp,
        "val_interval": 1,
        "weight_average": 0.2,
        "save_interval": save_interval,
    }
    run_bundle("training", config, output_dir=tmp_path / "whole", **settings)
    broken = tmp_path / "broken"
    train = partial(run_bundle, "training", config, output_dir=broken, resume="true", **settings)
    for processes, epochs in enumerate((2, 5), start=1):
        train_and_kill(train, broken, epochs)
        state = torch.load(broken / "last.pt", weights_only=True)  # complete at whatever moment it was killed
        if save_interval:
            assert state["epoch"] == processes
            assert read_metadata(broken / "model.pt")["figures"]["epoch"] <= processes
    assert len(rows(broken)) < 9
    train()

    whole, resumed = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "broken"))
    assert rows(broken) == rows(tmp_path / "whole")
    for name, value in whole["network"].items():
        assert torch.equal(value, resumed["network"][name]), name
    for key, state in whole["optimizer"]["state"].items():
        assert torch.equal(state["exp_avg"], resumed["optimizer"]["state"][key]["exp_avg"])
    assert whole["best_metric"] == resumed["best_metric"]
    assert curves(broken) == curves(tmp_path / "whole")
    assert (tmp_path / "whole" / "model.pt").read_bytes() == (broken / "model.pt").read_bytes()

    # A finished run that is resumed stays as it is.
    before = (broken / "last.pt").read_bytes()
    train()
    assert (broken / "last.pt").read_bytes() == before


def test_a_run_is_resumed_with_the_settings_that_it_began_with(trained: Path) -> None:
    dataset = trained.parent.parent / "dataset"
    before = (trained.parent / "last.pt").read_bytes()
    cycle = f"['{TRAIN}','configs/presets/cpu.yaml']"
    for config, change, named in (
        (TRAIN, {"fold": 1}, "data"),
        (TRAIN, {"seed": 5}, "seed"),
        (TRAIN, {"spatial_size": 48}, "preprocessing"),
        (TRAIN, {"learning_rate": 5e-3}, "optimizer)"),
        (TRAIN, {"weight_decay": 0.5}, "optimizer)"),
        (TRAIN, {"batch_size": 3}, "batch_size)"),
        (TRAIN, {"loss#cross_entropy_weight": 0.5}, "loss)"),
        (TRAIN, {"augment": "true"}, "augmentation)"),
        (TRAIN, {"augment": "true", "augment_scale": [0.5, 1.2]}, "augmentation)"),
        (TRAIN, {"sampling": "infected"}, "sampling)"),
        (cycle, {}, "optimizer, schedule, augmentation, total steps of the schedule)"),
    ):
        settings = {**NARROW, "max_epochs": 3, **change}
        done = run_bundle(
            "training", config, ok=False, dataset_dir=dataset, output_dir=trained.parent, resume="true", **settings
        )
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"error: {trained.parent / 'last.pt'}: began with other settings ({named}")
    assert (trained.parent / "last.pt").read_bytes() == before


def test_a_run_is_resumed_in_the_precision_that_it_began_with(trained: Path) -> None:
    last = trained.parent / "last.pt"
    state = torch.load(last, weights_only=True)
    assert state["identity"]["training_precision"] == read_metadata(trained)["training_precision"]
    settings = {**NARROW, "max_epochs": 3, "amp": "false", "resume": "true", "output_dir": trained.parent}
    settings["dataset_dir"] = trained.parent.parent / "dataset"
    torch.save({**state, "identity": {**state["identity"], "training_precision": "bfloat16"}}, last)
    done = run_bundle("training", TRAIN, ok=False, **settings)
    assert "began with other settings (training_precision bfloat16)" in done.stderr.splitlines()[-1]
    for key in ("training_precision", "optimizer", "schedule", "history", "average"):
        del state["identity"][key]  # as an earlier version left it
    torch.save(state, last)
    run_bundle("training", TRAIN, **settings)
