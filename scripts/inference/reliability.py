"""Measure, draw and mend the calibration of probabilities: reliability curve and error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from .operating_point import LEVELS, CaseCounts

BIN = 16
"""Levels in a bin of the reliability curve."""


def reliability(cases: Iterable[CaseCounts]) -> list[dict[str, float]]:
    """Compare probabilities with the fraction of lesion, in bins of `BIN` levels that have voxels.

    Returns:
        {"probability": mean of the bin, "observed": fraction of lesion, "voxels": n}.
    """
    cases = list(cases)
    voxels, lesion = (sum(getattr(case, name).sum(axis=0) for case in cases) for name in ("voxels", "lesion"))
    centres = (np.arange(LEVELS) + 0.5) / LEVELS
    rows = []
    for start in range(0, LEVELS, BIN):
        part = slice(start, start + BIN)
        if number := int(voxels[part].sum()):
            mean = float((centres[part] * voxels[part]).sum() / number)
            rows.append({"probability": mean, "observed": float(lesion[part].sum() / number), "voxels": number})
    return rows


def calibration_error(curve: Sequence[Mapping[str, float]]) -> float:
    """Return the mean |observed - probability| of voxels beyond the first bin, all background."""
    rows = [row for row in curve if row["probability"] >= BIN / LEVELS]
    number = sum(row["voxels"] for row in rows)
    return sum(abs(row["observed"] - row["probability"]) * row["voxels"] for row in rows) / number if number else 0.0


def calibrated_levels(curve: Sequence[Mapping[str, float]], steps: int) -> NDArray[np.uint8]:
    """Return what the levels of a probability map become when they are calibrated.

    A level becomes the fraction of lesion that the curve states for it: straight lines from 0
    through the bins, flat beyond the last. The fractions are made to rise with the probability
    (isotonic regression, weighed by the bins' voxels).

    Args:
        curve: see `reliability`; at least one bin.
        steps: the level of probability 1, at most 255.

    Returns:
        (steps + 1,), never falling.

    >>> curve = [{"probability": 0.0, "observed": 0.0, "voxels": 90}]
    >>> curve += [{"probability": 0.5, "observed": 0.4, "voxels": 10}]
    >>> calibrated_levels(curve, 10).tolist()
    [0, 1, 2, 2, 3, 4, 4, 4, 4, 4, 4]
    """
    means, observed, voxels = (np.array([row[key] for row in curve]) for key in ("probability", "observed", "voxels"))
    rising = isotonic_regression(observed, weights=voxels).x
    fractions = np.interp(np.arange(steps + 1) / steps, np.append(0, means), np.append(0, rising))
    return np.rint(steps * fractions).astype(np.uint8)


def draw_reliability(curve: Sequence[Mapping[str, float]], error: float, path: Path) -> None:
    """Draw the reliability curve and the number of voxels of each of its points as PNG."""
    figure = Figure(figsize=(5, 5.5), layout="constrained")
    axis, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axis.plot((0, 1), (0, 1), color="grey", linestyle=":")
    points = [row["probability"] for row in curve]
    axis.plot(points, [row["observed"] for row in curve], marker="o")
    axis.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of voxels with infection", title=f"calibration error {error:.3f}")
    below.bar(points, [row["voxels"] for row in curve], width=0.8 * BIN / LEVELS)
    below.set(yscale="log", xlabel="probability", ylabel="voxels")
    figure.savefig(path, format="png")
