"""The figures that MONAI Label's clients draw of a training, from the files of hand-made runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.monai_label import checkpoints
from scripts.monai_label.train_stats import finished_stats, running_stats

HISTORY = """epoch,learning_rate,train_loss,seconds,val_mean_dice,val_loss
1,0.001,0.9,40.4,,
2,0.001,0.7,40.4,0.61,0.5
3,0.001,0.6,40.4,0.58,0.4
"""


@pytest.fixture
def deployment(make_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A deployment whose weights were given."""
    folder = tmp_path / "deployment"
    (folder / checkpoints.CHECKPOINTS).mkdir(parents=True)
    checkpoints.activate(folder, checkpoints.add(folder, make_checkpoint(tmp_path / "given" / "model.pt")))
    return folder


def write_run(folder: Path, history: str = HISTORY) -> None:
    folder.mkdir(parents=True)
    (folder / "history.csv").write_text(history)


def test_given_weights_were_trained_for_no_epoch_here(deployment: Path) -> None:
    assert finished_stats(deployment) == {"epoch": 0, "total_time": "0:00:00"}


def test_a_finished_training_has_epochs_time_and_the_best_dice(deployment: Path) -> None:
    (deployment / checkpoints.CHECKPOINTS / checkpoints.active(deployment) / "history.csv").write_text(HISTORY)
    stats = finished_stats(deployment)
    assert stats == {
        "epoch": 3,
        "total_time": "0:02:01",
        "best_metric": 0.61,
        "train": {"metrics": {"train_loss": 0.6}},
        "eval": {
            "metrics": {"val_mean_dice": 0.58, "val_loss": 0.4},
            "key_metric_name": "val_mean_dice",
            "best_metric": 0.61,
            "best_metric_epoch": 2,
        },
    }
    assert json.loads(json.dumps(stats, allow_nan=False)) == stats


def test_a_training_without_validation_has_no_dice(deployment: Path) -> None:
    write_run(deployment / "runs/20261128-050102", "epoch,learning_rate,train_loss,seconds\n1,0.001,0.9,4\n")
    stats = running_stats(deployment, 5, "2026-11-28 05:01:02")
    assert stats == {
        "epoch": 1,
        "total_epochs": 5,
        "current_time": "0:00:04",
        "train": {"metrics": {"train_loss": 0.9}},
    }


def test_a_running_training_is_not_the_one_that_was_stopped_before(deployment: Path) -> None:
    write_run(deployment / "runs/20261128-050101")
    assert running_stats(deployment, 5, "2026-11-28 05:01:02") == {
        "epoch": 0,
        "total_epochs": 5,
        "current_time": "0:00:00",
    }
    write_run(deployment / "runs/20261128-050110")
    stats = running_stats(deployment, 5, "2026-11-28 05:01:02")
    assert (stats["epoch"], stats["total_epochs"], stats["best_metric"]) == (3, 5, 0.61)
    assert "total_time" not in stats
