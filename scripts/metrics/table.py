"""The rows of `metrics.csv` (a case each) and `slices.csv`, and the figures of `summary.json`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .counts import OVERLAP_RATIOS, Counts, Rules, check_probabilities, counts_at, prepare_maps
from .functional import MAP_MEASURES, MEASURES, OVERLAP_MEASURES, measure_all
from .slices import case_to_slices, per_slice
from .surface import surface_measures

Row = dict[str, Any]
VOLUME_MEASURES = ("volume_ml", "predicted_volume_ml", "volume_error_ml")
SURFACE_MEASURES = ("hd95_mm", "surface_dice_1mm")


def score_case(
    prob: Tensor,
    target: Tensor,
    *,
    threshold: float,
    name: str,
    patient: str | None,
    spacing: Sequence[float] | None = None,
    surface: bool = False,
    rules: Rules = "plain",
) -> tuple[Row, list[Row]]:
    """Return the row of one case and the rows of its slices; NaN where undefined.

    Overlap measures of the case come from the counts of the whole case, `mae`, `e_measure` and
    `s_measure` are means over its slices. Under "infnet_toolbox" rules, which know images only, all
    are means over slices; counts and volumes always belong to the mask at `threshold`.
    `false_positive_voxels` and `false_positive_ml` are stated for a case without lesion, NaN for
    others.

    Args:
        prob: (1, X, Y, Z) or (1, 1, X, Y, Z), a volume whose last axis counts the slices, or (1, H,
            W), a slice; range [0, 1].
        target: the same shape, {0, 1}.
        threshold: probability from which a voxel is lesion.
        name: of the case.
        patient: whom it belongs to, None if unknown.
        spacing: voxel size along X, Y, Z in mm; adds volumes in ml.
        surface: adds `hd95_mm` and `surface_dice_1mm`, conventions as `surface.surface_measures`.
        rules: "plain" or "infnet_toolbox", see `functional`.

    Raises:
        ValueError: for shapes or a spacing not named above, values outside [0, 1], unknown rules,
            or `surface` without `spacing`.
    """
    if prob.shape != target.shape:
        raise ValueError(f"prediction {tuple(prob.shape)}, target {tuple(target.shape)}; expected: the same shape")
    voxel_ml = _voxel_ml(spacing)
    if surface and spacing is None:
        raise ValueError("surface distances need the spacing in mm")
    check_probabilities(prob)
    maps = case_to_slices(prob), case_to_slices(target)
    slices = _slice_table(*maps, threshold, rules)
    case: Row = {"case": name, "patient": patient} | _case_figures(slices, rules)
    if voxel_ml is not None:
        slices["predicted_ml"] = slices["predicted"] * voxel_ml
        case |= _volumes(case, voxel_ml)
    if surface and spacing is not None:
        case |= surface_measures(*_masks(*maps, threshold), spacing)
    slice_rows: list[Row] = slices.to_dict("records")  # type: ignore[assignment]
    return case, [{"case": name, "patient": patient} | row for row in slice_rows]


def summarise(case_rows: Sequence[Row], slice_rows: Sequence[Row]) -> dict[str, Any]:
    """Return the figures of a set with n; undefined values are left out and counted.

    Args:
        case_rows: of `score_case`, one a case.
        slice_rows: of `score_case`, of all cases.

    Returns:
        "case", "slice", "positive_slice": for each measure its mean, std (n - 1), median, min, max,
        n and n_undefined; "pooled": the counts of the set and what they give (plain rules at the
        threshold); "lesion_free": for the cases and slices without lesion their n, how many have
        false positives, the mean voxels and ml (n_ml: of how many the voxel size is known).
        Undefined figures are NaN; `json_ready` makes them null.

    Raises:
        ValueError: without any case or slice.
    """
    if not case_rows or not slice_rows:
        raise ValueError("there is no case to summarise")
    cases, slices = pd.DataFrame(case_rows), pd.DataFrame(slice_rows)
    positive = slices["actual"] > 0
    return {
        "case": _statistics(cases, (*MEASURES, *VOLUME_MEASURES, *SURFACE_MEASURES)),
        "slice": _statistics(slices, MEASURES),
        "positive_slice": _statistics(slices[positive], MEASURES),
        "pooled": _pooled(slices) | {"n_cases": len(cases), "n_slices": len(slices)},
        "lesion_free": {
            "case": _false_positives(cases[cases["actual"] == 0], "predicted_volume_ml"),
            "slice": _false_positives(slices[~positive], "predicted_ml"),
        },
    }


def json_ready(value: Any) -> Any:
    """The same nested figures with NaN and infinite numbers as None, NumPy numbers as Python's.

    >>> json_ready({"dice": float("nan"), "n": [3, 0.5]})
    {'dice': None, 'n': [3, 0.5]}
    """
    if isinstance(value, dict):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _slice_table(prob: Tensor, target: Tensor, threshold: float, rules: Rules) -> pd.DataFrame:
    """Return the index, counts and measures of slices (Z, 1, X, Y); the one transfer to the CPU."""

    def columns(p: Tensor, t: Tensor) -> Tensor:
        measures = measure_all(p, t, threshold=threshold, rules=rules)
        return torch.stack([*counts_at(*prepare_maps(p, t), threshold), *measures.values()], dim=1)

    values = per_slice(columns, prob, target).cpu().numpy()
    table = pd.DataFrame(values, columns=[*Counts._fields, *MEASURES])
    table = table.astype(dict.fromkeys(Counts._fields, int))
    table.insert(0, "slice", range(len(table)))
    table["positive"] = table["actual"] > 0
    return table


def _case_figures(slices: pd.DataFrame, rules: Rules) -> Row:
    counts = {field: int(slices[field].sum()) for field in Counts._fields}
    if rules == "plain":
        figures = _ratios(counts) | {name: float(slices[name].mean()) for name in MAP_MEASURES}
    else:
        figures = {name: float(slices[name].mean()) for name in MEASURES}
    found = {"n_slices": len(slices), "n_positive_slices": int(slices["positive"].sum())} | figures | counts
    return found | {"false_positive_voxels": math.nan if counts["actual"] else counts["predicted"]}


def _ratios(counts: dict[str, int]) -> Row:
    tensors = Counts(**{field: torch.tensor(n) for field, n in counts.items()})
    return {name: float(OVERLAP_RATIOS[name](tensors)) for name in OVERLAP_MEASURES}


def _voxel_ml(spacing: Sequence[float] | None) -> float | None:
    if spacing is None:
        return None
    if len(spacing) != 3 or not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        raise ValueError(f"spacing is {tuple(spacing)}; expected: three positive numbers in mm")
    return float(math.prod(spacing)) / 1000


def _volumes(case: Row, voxel_ml: float) -> Row:
    """Return lesion volumes; the error is signed, predicted - actual."""
    return {
        "volume_ml": case["actual"] * voxel_ml,
        "predicted_volume_ml": case["predicted"] * voxel_ml,
        "volume_error_ml": (case["predicted"] - case["actual"]) * voxel_ml,
        "false_positive_ml": case["false_positive_voxels"] * voxel_ml,
    }


def _masks(prob: Tensor, target: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    def masks(p: Tensor, t: Tensor) -> Tensor:
        prob, actual = prepare_maps(p, t)
        return torch.cat([prob >= threshold, actual], dim=1)

    predicted, actual = per_slice(masks, prob, target).permute(1, 2, 3, 0)
    return predicted, actual


def _statistics(table: pd.DataFrame, names: Sequence[str]) -> dict[str, Row]:
    return {name: _distribution(table[name]) for name in names if name in table}


def _distribution(values: pd.Series[float]) -> Row:
    defined = values.astype(float).replace([math.inf, -math.inf], math.nan).dropna()
    figures = {name: float(defined.agg(name)) for name in ("mean", "std", "median", "min", "max")}
    return figures | {"n": len(defined), "n_undefined": len(values) - len(defined)}


def _pooled(slices: pd.DataFrame) -> Row:
    counts = {field: int(slices[field].sum()) for field in Counts._fields}
    return counts | _ratios(counts)


def _false_positives(lesion_free: pd.DataFrame, ml_column: str) -> Row:
    """Return false positives on cases or slices without lesion: there, all that is predicted."""
    ml = lesion_free[ml_column].dropna() if ml_column in lesion_free else pd.Series(dtype=float)
    return {
        "n": len(lesion_free),
        "n_with_false_positives": int((lesion_free["predicted"] > 0).sum()),
        "mean_voxels": float(lesion_free["predicted"].mean()),
        "mean_ml": float(ml.mean()),
        "n_ml": len(ml),
    }
