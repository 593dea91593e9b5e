"""Epochs, time and Dice of a training, by the names that MONAI Label's clients look for.

3D Slicer and OHIF draw their progress and accuracy bars from `train_stats` of `/info/`.
"""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from . import checkpoints

KEY_METRIC = "val_mean_dice"


def finished_stats(deployment: str | Path) -> dict[str, Any]:
    """Return the stats of the training that made the weights in use; of given weights 0 epochs.

    `total_time` tells a client that nothing runs.
    """
    rows = _history(Path(deployment) / checkpoints.CHECKPOINTS / checkpoints.active(deployment))
    return {**_measured(rows), "total_time": _time(rows)}


def running_stats(deployment: str | Path, total_epochs: int, submitted: str) -> dict[str, Any]:
    """Return the stats of a training that runs; `epoch` is 0 until the first one has ended.

    Args:
        deployment: where it writes.
        total_epochs: how many epochs it was asked for.
        submitted: local time of the request, YYYY-MM-DD HH:MM:SS; runs from before it were stopped.
    """
    runs = [run for run in (Path(deployment) / checkpoints.RUNS).glob("*") if _digits(run.name) >= _digits(submitted)]
    rows = _history(max(runs)) if runs else pd.DataFrame()
    return {**_measured(rows), "total_epochs": total_epochs, "current_time": _time(rows)}


def _history(run: Path) -> pd.DataFrame:
    file = run / "history.csv"
    return pd.read_csv(file) if file.exists() else pd.DataFrame()


def _measured(rows: pd.DataFrame) -> dict[str, Any]:
    if rows.empty:
        return {"epoch": 0}
    last = rows.iloc[-1].dropna().to_dict()
    training = {"epoch": int(last["epoch"]), "train": {"metrics": {"train_loss": last.get("train_loss")}}}
    validated = rows.dropna(subset=[KEY_METRIC]) if KEY_METRIC in rows else rows[:0]
    if validated.empty:
        return training
    best = validated.iloc[int(validated[KEY_METRIC].to_numpy().argmax())]
    best_metric = {"best_metric": float(best[KEY_METRIC])}
    metrics = {name: value for name, value in last.items() if str(name).startswith("val_")}
    epoch = {"key_metric_name": KEY_METRIC, "best_metric_epoch": int(best["epoch"])}
    return {**training, **best_metric, "eval": {"metrics": metrics, **epoch, **best_metric}}


def _time(rows: pd.DataFrame) -> str:
    """Return the time of the epochs, H:MM:SS."""
    return str(timedelta(seconds=0 if rows.empty else round(rows["seconds"].sum())))


def _digits(moment: str) -> str:
    """Return YYYYMMDDhhmmss of a run's name or a time.

    >>> _digits("20261128-050102_dice-0.731"), _digits("2026-11-28 05:01:02")
    ('20261128050102', '20261128050102')
    """
    return re.sub(r"\D", "", moment)[:14]
