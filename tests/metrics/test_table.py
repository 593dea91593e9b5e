from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from scripts.metrics.functional import MEASURES, measure, measure_all
from scripts.metrics.table import json_ready, score_case, summarise


@pytest.fixture
def volume():
    """4 x 4 x 3: a lesion of 4 found in half with 1 false positive, nothing, 2 false positives."""
    prob, target = torch.zeros(1, 4, 4, 3), torch.zeros(1, 4, 4, 3)
    target[0, 0, :, 0] = 1
    prob[0, 0, :2, 0] = 0.8
    prob[0, 3, 3, 0] = 0.5
    prob[0, 1, :2, 2] = 0.75
    return prob, target


def score(prob, target, **options):
    return score_case(prob, target, **{"threshold": 0.5, "name": "a", "patient": "p"} | options)


def test_case_by_hand(volume):
    case, _ = score(*volume)
    counts = {"tp": 2, "predicted": 5, "actual": 4, "size": 48}
    assert counts.items() <= case.items()
    assert {"case": "a", "patient": "p", "n_slices": 3, "n_positive_slices": 1}.items() <= case.items()
    assert case["dice"] == pytest.approx(4 / 9)
    assert case["sensitivity"] == 0.5
    assert case["precision"] == pytest.approx(2 / 5)
    assert case["specificity"] == pytest.approx(41 / 44)
    assert case["mae"] == pytest.approx((2 * 0.2 + 2 + 0.5 + 2 * 0.75) / 48)
    assert math.isnan(case["false_positive_voxels"])
    assert "volume_ml" not in case
    assert "hd95_mm" not in case


def test_slices_by_hand(volume):
    _, rows = score(*volume)
    assert [row["slice"] for row in rows] == [0, 1, 2]
    assert [(row["tp"], row["predicted"], row["actual"]) for row in rows] == [(2, 3, 4), (0, 0, 0), (0, 2, 0)]
    assert [row["dice"] for row in rows] == [pytest.approx(4 / 7), 1, 0]
    assert [row["positive"] for row in rows] == [True, False, False]
    assert math.isnan(rows[1]["sensitivity"])
    assert math.isnan(rows[1]["precision"])
    assert rows[2]["precision"] == 0
    assert rows[0]["case"] == "a"


def test_numbers_are_plain_python(volume):
    case, rows = score(*volume, spacing=(1, 1, 1), surface=True)
    for row in (case, *rows):
        assert {type(value) for value in row.values()} <= {str, int, float, bool}
        json.dumps(row)


@pytest.mark.parametrize("rules", ["plain", "infnet_toolbox"])
def test_rows_agree_with_the_functions(rules, random_maps):
    prob, target = random_maps(batch=5)
    target[1], prob = 0, 0.1 + 0.5 * prob
    case, rows = score(prob.movedim(0, -1), target.movedim(0, -1), rules=rules, threshold=0.4)  # (1, H, W, 5)
    expected = measure_all(prob, target, threshold=0.4, rules=rules)
    for name in MEASURES:
        found = torch.tensor([row[name] for row in rows], dtype=torch.float64)
        torch.testing.assert_close(found, expected[name], equal_nan=True)
    for name in ("mae", "e_measure", "s_measure"):
        assert case[name] == pytest.approx(expected[name].mean().item())
    if rules == "infnet_toolbox":
        assert case["dice"] == pytest.approx(expected["dice"].mean().item())
    assert case["predicted"] == int((prob >= 0.4).sum())  # the mask's, never the stretched map's


def test_a_slice_is_a_case(volume):
    prob, target = (maps[..., 0] for maps in volume)
    case, rows = score(prob, target)
    assert case["n_slices"] == len(rows) == 1
    assert case["dice"] == rows[0]["dice"] == pytest.approx(4 / 7)
    assert score(prob[None], target[None])[0]["s_measure"] == pytest.approx(
        measure("s_measure", prob[None], target[None]).item()
    )


def test_millilitres(volume):
    case, rows = score(*volume, spacing=(0.5, 2, 10))  # a voxel is 0.01 ml
    assert case["volume_ml"] == pytest.approx(0.04)
    assert case["predicted_volume_ml"] == pytest.approx(0.05)
    assert case["volume_error_ml"] == pytest.approx(0.01)
    assert math.isnan(case["false_positive_ml"])
    assert [row["predicted_ml"] for row in rows] == pytest.approx([0.03, 0, 0.02])


def test_false_positives_of_a_healthy_case(volume):
    prob, target = volume
    case, _ = score(prob, 0 * target, spacing=(0.5, 2, 10))
    assert case["false_positive_voxels"] == 5
    assert case["false_positive_ml"] == pytest.approx(0.05)
    assert case["dice"] == 0
    assert math.isnan(case["sensitivity"])
    assert score(0 * prob, 0 * target)[0]["dice"] == 1


def test_surface_in_the_orientation_of_the_volume():
    prob, target = torch.zeros(1, 8, 9, 4), torch.zeros(1, 8, 9, 4)
    target[0, 3, 4, 1] = prob[0, 3, 6, 1] = 1
    case, _ = score(prob, target, spacing=(1, 3, 5), surface=True)
    assert case["hd95_mm"] == pytest.approx(6)
    assert case["surface_dice_1mm"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spacing": (1, 1)}, "three positive numbers in mm"),
        ({"spacing": (1, 1, 0)}, "three positive numbers in mm"),
        ({"spacing": (1, 1, math.nan)}, "three positive numbers in mm"),
        ({"surface": True}, "need the spacing"),
        ({"rules": "other"}, "expected: plain, infnet_toolbox"),
    ],
)
def test_wrong_options(options, message, volume):
    with pytest.raises(ValueError, match=message):
        score(*volume, **options)


def test_wrong_maps(volume):
    prob, target = volume
    with pytest.raises(ValueError, match="expected: the same shape"):
        score(prob, target[..., :2])
    with pytest.raises(ValueError, match="after the sigmoid"):
        score(prob * 2, target)


@pytest.fixture
def summary(volume):
    prob, target = volume
    scores = [
        score(prob, target, name="lesion", spacing=(0.5, 2, 10)),
        score(prob, 0 * target, name="healthy", spacing=(0.5, 2, 10)),
        score(0 * prob, 0 * target, name="clean"),  # spacing unknown
    ]
    return summarise([case for case, _ in scores], [row for _, rows in scores for row in rows])


def test_summary_of_cases(summary):
    dice = summary["case"]["dice"]
    values = [4 / 9, 0, 1]
    assert dice["mean"] == pytest.approx(np.mean(values))
    assert dice["std"] == pytest.approx(np.std(values, ddof=1))
    assert (dice["median"], dice["min"], dice["max"]) == (pytest.approx(4 / 9), 0, 1)
    assert (dice["n"], dice["n_undefined"]) == (3, 0)
    sensitivity = summary["case"]["sensitivity"]
    assert (sensitivity["mean"], sensitivity["n"], sensitivity["n_undefined"]) == (0.5, 1, 2)
    assert math.isnan(sensitivity["std"])
    assert summary["case"]["volume_error_ml"]["mean"] == pytest.approx((0.01 + 0.05) / 2)
    assert summary["case"]["volume_error_ml"]["n_undefined"] == 1
    assert "hd95_mm" not in summary["case"]


def test_summary_of_slices(summary):
    assert summary["slice"]["dice"]["mean"] == pytest.approx((4 / 7 + 1 + 0 + 0 + 1 + 0 + 3) / 9)
    assert summary["slice"]["dice"]["n"] == 9
    assert (summary["slice"]["precision"]["n"], summary["slice"]["precision"]["n_undefined"]) == (4, 5)
    assert summary["positive_slice"]["dice"]["mean"] == pytest.approx(4 / 7)
    assert summary["positive_slice"]["dice"]["n"] == 1


def test_summary_pooled(summary):
    pooled = summary["pooled"]
    assert (pooled["tp"], pooled["predicted"], pooled["actual"], pooled["size"]) == (2, 10, 4, 144)
    assert pooled["dice"] == pytest.approx(4 / 14)
    assert (pooled["sensitivity"], pooled["precision"]) == (0.5, pytest.approx(0.2))
    assert (pooled["n_cases"], pooled["n_slices"]) == (3, 9)


def test_summary_of_what_is_lesion_free(summary):
    assert summary["lesion_free"]["case"] == {
        "n": 2,
        "n_with_false_positives": 1,
        "mean_voxels": 2.5,
        "mean_ml": pytest.approx(0.05),
        "n_ml": 1,
    }
    slices = summary["lesion_free"]["slice"]
    assert (slices["n"], slices["n_with_false_positives"], slices["n_ml"]) == (8, 3, 5)
    assert slices["mean_voxels"] == pytest.approx((2 + 3 + 2) / 8)
    assert slices["mean_ml"] == pytest.approx(0.07 / 5)


def test_summary_is_json_with_null_for_undefined(summary, volume):
    text = json.dumps(json_ready(summary), allow_nan=False)
    assert json.loads(text)["case"]["sensitivity"]["std"] is None
    case, rows = score(*volume)
    no_healthy_case = json_ready(summarise([case], rows[:1]))
    assert no_healthy_case["lesion_free"]["case"] == {
        "n": 0,
        "n_with_false_positives": 0,
        "mean_voxels": None,
        "mean_ml": None,
        "n_ml": 0,
    }


def test_infinite_values_are_undefined(volume):
    case, rows = score(*volume)
    figures = summarise([case | {"hd95_mm": math.inf}, case | {"hd95_mm": 3.0}], rows)["case"]["hd95_mm"]
    assert (figures["mean"], figures["n"], figures["n_undefined"]) == (3, 1, 1)


def test_json_ready_of_nested_numbers():
    value = {"a": [np.float64("nan"), np.int64(3), math.inf], "b": (None, "x", True)}
    assert json_ready(value) == {"a": [None, 3, None], "b": [None, "x", True]}


def test_nothing_to_summarise():
    with pytest.raises(ValueError, match="no case"):
        summarise([], [])
