"""The table's figures against a hand calculation."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from scripts.research.experiment_tables import Run, _cases, compare
from scripts.research.experiment_text import MEASURES, PARTS, _conditions, _difference, table_lines

BASE = [[0.6, 0.7], [0.8]]


def tables(**folds: list[list[float]]) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Runs and cases of some variants, given the Dice of each patient of each fold."""
    runs, cases = [], []
    for variant, values in folds.items():
        for fold, dice in enumerate(values):
            key = {"variant": variant, "seed": 0, "fold": fold}
            other = {**dict.fromkeys(MEASURES, 0.5), **dict.fromkeys(PARTS, 0.25)}
            runs.append({**key, **other, "dice": sum(dice) / len(dice)})
            cases += [{**key, "case": f"{fold}{k}", "patient": f"P{fold}{k}", "dice": d} for k, d in enumerate(dice)]
    return pd.DataFrame(runs), pd.DataFrame(cases), list(folds)


def test_mean_and_spread_over_the_runs() -> None:
    table = compare(*tables(base=BASE, other=[[0.5, 0.5], [0.5]]))
    assert table.loc["base", "dice"] == pytest.approx(72.5)  # 65, 80
    assert table.loc["base", "dice_sd"] == pytest.approx(15 / math.sqrt(2))
    assert table.loc["base", "slice_dice"] == 25
    assert math.isnan(compare(*tables(base=[[0.6]])).loc["base", "dice_sd"])


def test_the_difference_is_paired_by_patient_with_the_interval_of_students_t() -> None:
    table = compare(*tables(base=BASE, better=[[0.64, 0.75], [0.83]], same=[[0.65, 0.65], [0.81]]))
    better, same = table.loc["better"], table.loc["same"]
    assert better["difference"] == pytest.approx(4)  # 4, 5, 3: sd 1
    assert better["difference_n"] == 3
    half = 4.3026527 / math.sqrt(3)  # the 97.5th percentile of t with two degrees of freedom, from a printed table
    assert (better["difference_low"], better["difference_high"]) == pytest.approx((4 - half, 4 + half))
    assert bool(better["detectable"])
    assert same["difference"] == pytest.approx(1 / 3)  # 5, -5, 1
    assert not same["detectable"]
    assert not table.loc["base", "detectable"]


def test_cases_of_one_patient_and_seeds_count_as_one() -> None:
    runs, cases, order = tables(base=BASE, better=[[0.64, 0.75], [0.83]])
    cases["patient"] = ["A", "A", "B"] * 2
    found = compare(runs, cases, order).loc["better"]
    assert (found["difference"], found["difference_n"]) == (pytest.approx((4.5 + 3) / 2), 2)
    again = compare(*(pd.concat([one, one.assign(seed=1)]) for one in (runs, cases)), order).loc["better"]
    assert (again["difference"], again["difference_n"]) == (pytest.approx((4.5 + 3) / 2), 2)
    cases["patient"] = None
    assert compare(runs, cases, order).loc["better", "difference_n"] == 3


def test_the_interval_of_several_seeds_holds_them_too() -> None:
    first, second = (tables(base=BASE, better=better) for better in ([[0.64, 0.76], [0.82]], [[0.66, 0.78], [0.84]]))
    runs, cases = (pd.concat([one, other.assign(seed=1)]) for one, other in zip(first[:2], second[:2], strict=True))
    found = compare(runs, cases, first[2]).loc["better"]
    assert (found["difference"], found["difference_n"]) == (pytest.approx(5), 3)  # 4, 6 | 2 and 6, 8 | 4
    by_patient = 4 / 3  # 5, 7, 3: variance 4
    by_training = 4 / 3 * (0**2 + 3**2 + 4**2 + 1**2) / 36  # sums of what differs from 5: -1 + 1, -3, 1 + 3, -1
    by_both = 6 / 5 * (1 + 1 + 9 + 1 + 9 + 1) / 36
    half = 4.3026527 * math.sqrt(by_patient + by_training - by_both)
    assert (found["difference_low"], found["difference_high"]) == pytest.approx((5 - half, 5 + half))


def test_trainings_that_judge_the_same_patients_are_no_draws_of_their_own() -> None:
    """Test cases, seen by every fold's training: two of these differ as two seeds do."""
    first, second = (tables(base=BASE, better=better) for better in ([[0.64, 0.76], [0.82]], [[0.66, 0.78], [0.84]]))
    by_seed, by_fold = (
        compare(*(pd.concat([one, other.assign(**{key: 7})]) for one, other in zip(a, b, strict=True)), first[2])
        for key, a, b in (("seed", alone(first), alone(second)), ("fold", alone(first), alone(second)))
    )
    pd.testing.assert_frame_equal(by_seed, by_fold)
    assert by_fold.loc["better", "difference_n"] == 3


def alone(made: tuple[pd.DataFrame, pd.DataFrame, list[str]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cases of all folds, judged by one training."""
    runs, cases, _ = made
    return runs[runs["fold"] == 0], cases.assign(fold=0)


def test_a_seed_that_shows_the_same_again_narrows_nothing() -> None:
    runs, cases, order = tables(base=[[0.6, 0.7], [0.8, 0.5]], better=[[0.64, 0.75], [0.83, 0.6]])
    once = compare(runs, cases, order).loc["better"]
    twice = compare(*(pd.concat([one, one.assign(seed=1)]) for one in (runs, cases)), order).loc["better"]
    assert twice["difference_low"] <= once["difference_low"] + 1e-9
    assert twice["difference_high"] >= once["difference_high"] - 1e-9


def test_names_of_cases_and_patients_are_texts(tmp_path: Path) -> None:
    names = ["1.1", "1.10", "001", "NA"]
    table = pd.DataFrame({"case": names, "patient": ["7", "7.0", None, "null"], "dice": [0.5, 0.6, math.nan, 0.8]})
    (tmp_path / "tables").mkdir()
    table.set_index("case").to_csv(tmp_path / "tables" / "metrics.csv")
    cases = _cases(Run("base", 0, 0, "1", tmp_path), None)
    assert list(cases["case"]) == names
    assert list(cases["patient"].dropna()) == ["7", "7.0", "null"]
    runs = pd.DataFrame([{"variant": name, "seed": 0, "fold": 0, "dice": 0.5} for name in ("base", "better")])
    both = pd.concat([cases, cases.assign(variant="better", dice=cases["dice"] + 0.1)])
    found = compare(runs, both, ["base", "better"]).loc["better"]
    assert (found["difference"], found["difference_n"]) == (pytest.approx(10), 3)


def test_nothing_is_detectable_from_less_than_three_patients() -> None:
    table = compare(*tables(base=[[0.6, 0.6]], better=[[0.9, 0.9]]))
    assert table.loc["better", "difference"] == pytest.approx(30)
    assert math.isnan(table.loc["better", "difference_low"])
    assert not table["detectable"].any()


def test_only_what_both_variants_have_is_compared() -> None:
    runs, cases, order = tables(base=BASE, better=[[0.64, 0.75], [0.83]])
    alone = [one[(one["variant"] == "base") | (one["fold"] == 1)] for one in (runs, cases)]
    found = compare(*alone, order).loc["better"]
    assert (found["difference"], found["difference_n"]) == (pytest.approx(3), 1)
    assert _difference(found) == "+3.0, n = 1, none detectable"


def test_mae_is_printed_to_a_hundredth_of_a_percent_beside_e_and_s() -> None:
    runs, cases, order = tables(base=[[0.6], [0.8]], other=[[0.6], [0.8]])
    runs["mae"] = [0.00520, 0.00520, 0.00560, 0.00580]  # C_2 and C_1 of the paper differ by 0.04 percent
    runs["e_measure"], runs["s_measure"] = 0.9569, 0.8675
    lines = table_lines(compare(runs, cases, order), published=False)
    header, base, other = ([cell.strip() for cell in lines[k].split("|")] for k in (0, 2, 3))
    assert (base[header.index("MAE")], other[header.index("MAE")]) == ("0.52 ± 0.00", "0.57 ± 0.01")
    assert (base[header.index("E-measure")], base[header.index("S-measure")]) == ("95.7 ± 0.0", "86.8 ± 0.0")


@pytest.mark.parametrize(("protocol", "said"), [("within", "; 5 cases of x,"), ("test", "; 3 cases of x,")])
@pytest.mark.parametrize("ended", [[("A", 1), ("B", 0)], [("A", 0), ("B", 0)], [("B", 1)]])
def test_the_number_of_cases_is_known_whichever_runs_have_ended(
    protocol: str, said: str, ended: list[tuple[str, int]]
) -> None:
    """Two folds judge three and two cases; of the first run that has ended only one fold has."""
    runs = pd.DataFrame(
        {"variant": variant, "seed": seed, "fold": fold, "cases": cases}
        for variant, seed in ended
        for fold, cases in enumerate((3, 2 if protocol == "within" else 3))
        if fold == 0 or (variant, seed) == ended[-1]
    )
    table = pd.DataFrame(index=pd.Index([variant for variant, _ in ended], name="variant"))
    data = {"name": "x", "split": "patient", "seed": 0, "warnings": []}
    record = {"data": data, "protocol": protocol, "datalist_sha256": None, "keep": "last"}
    assert said in _conditions(table, runs, record)
