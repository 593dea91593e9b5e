"""The table's figures against a hand calculation."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from scripts.training.experiment_tables import MEASURES, PARTS, compare


def runs(**dice: list[float]) -> pd.DataFrame:
    rows = []
    for variant, values in dice.items():
        for fold, value in enumerate(values):
            row = {
                "variant": variant,
                "seed": 0,
                "fold": fold,
                **dict.fromkeys(MEASURES, 0.5),
                **dict.fromkeys(PARTS, 0.25),
            }
            rows.append({**row, "dice": value})
    return pd.DataFrame(rows)


def test_mean_spread_and_paired_difference() -> None:
    table = compare(
        runs(base=[0.60, 0.70, 0.80], better=[0.64, 0.75, 0.83], same=[0.65, 0.65, 0.81]), ["base", "better", "same"]
    )
    assert table.loc["base", "dice"] == pytest.approx(70)
    assert table.loc["base", "dice_sd"] == pytest.approx(10)
    assert table.loc["better", "difference"] == pytest.approx(4)  # 4, 5, 3
    assert table.loc["better", "difference_sd"] == pytest.approx(1)
    assert bool(table.loc["better", "detectable"])  # 4 > 2 * 1 / sqrt(3)
    assert table.loc["same", "difference"] == pytest.approx(1 / 3)  # 5, -5, 1
    assert not table.loc["same", "detectable"]
    assert table.loc["base", "slice_dice"] == 25


def test_nothing_is_detectable_from_less_than_three_runs() -> None:
    table = compare(runs(base=[0.6, 0.6], better=[0.9, 0.9]), ["base", "better"])
    assert table.loc["better", "difference"] == pytest.approx(30)
    assert not table["detectable"].any()
    assert math.isnan(compare(runs(base=[0.6]), ["base"]).loc["base", "dice_sd"])
