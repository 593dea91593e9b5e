"""Choose the decision threshold and the slice rule from counts of voxels by probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

LEVELS = 256
"""Probabilities are counted by floor(256 p): p >= k / 256 is level k or more."""

CANDIDATES = range(LEVELS // 10, LEVELS * 9 // 10)
"""Levels that may become the threshold: 0.1 to 0.9."""

FLAT = 0.002
"""Dice within this of the highest is as good: the optimum is flat, and the cases are few."""

GOOD_DICE = 0.5
"""Masks of unseen cases with this Dice or more are good; the agreement of their views is usual."""

FLAGGED = 10
"""Percentage of the good masks whose views agree less than what becomes the limit."""

KINDS = (("volumes", False), ("pictures", True))
"""Kinds of cases that are averaged apart, and whether their cases are 2-D images."""


@dataclass(frozen=True)
class CaseCounts:
    """What calibration keeps of a case.

    Attributes:
        name: the case.
        picture: whether it is a single 2-D image and not a volume.
        voxels: (Z, LEVELS) voxels of each slice by level.
        lesion: (Z, LEVELS), those of them that are lesion.
        ood_score: mean out-of-distribution score of its slices, by the weights that saw it; None
            where no slice lies in the field of view.
        views_agree: (LEVELS,) percentage of pixels that all views mark, of those that any marks,
            with each level of `CANDIDATES` as threshold, NaN elsewhere and where nothing is marked;
            None with one view.
    """

    name: str
    picture: bool
    voxels: NDArray[np.int64]
    lesion: NDArray[np.int64]
    ood_score: float | None
    views_agree: NDArray[np.float64] | None = None


def count_levels(probability: NDArray[np.float32], label: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the voxels of each slice, and those with lesion, by their level of probability.

    Args:
        probability: (X, Y, Z) in [0, 1].
        label: (X, Y, Z), lesion from 0.5 on.

    Returns:
        Two arrays (Z, LEVELS).
    """
    levels = np.minimum(np.floor(probability * LEVELS), LEVELS - 1).astype(np.int64)
    offset = levels + LEVELS * np.arange(levels.shape[2])
    lesion = label >= 0.5
    size = LEVELS * levels.shape[2]
    counted = [np.bincount(values, minlength=size).reshape(-1, LEVELS) for values in (offset.ravel(), offset[lesion])]
    return counted[0], counted[1]


def dice_by_level(case: CaseCounts) -> NDArray[np.float64]:
    """Return the Dice of a case by threshold, (LEVELS,); 1 where neither side has lesion."""
    predicted, found = (_from_level_on(counts.sum(axis=0)) for counts in (case.voxels, case.lesion))
    both = predicted + found[0]
    return np.divide(2.0 * found, both, out=np.ones(LEVELS), where=both > 0)


def _from_level_on(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.cumsum(counts[::-1])[::-1]


def dice_of_kinds(cases: Sequence[CaseCounts]) -> dict[str, tuple[NDArray[np.float64], int]]:
    """Return mean Dice by threshold, (LEVELS,), and number of cases of each kind that has cases."""
    kinds = {kind: [dice_by_level(case) for case in cases if case.picture == picture] for kind, picture in KINDS}
    return {kind: (np.mean(own, axis=0), len(own)) for kind, own in kinds.items() if own}


def choose_threshold(cases: Sequence[CaseCounts]) -> float:
    """Return the threshold with the highest Dice, volumes and 2-D images weighing the same.

    Of those whose Dice is within `FLAT` of it the one nearest to 0.5 is taken.
    """
    curve = np.mean([dice for dice, _ in dice_of_kinds(cases).values()], axis=0)
    highest = max(curve[level] for level in CANDIDATES)
    good = [level for level in CANDIDATES if curve[level] >= highest - FLAT]
    return min(good, key=lambda level: abs(level - LEVELS // 2)) / LEVELS


def choose_slice_fraction(cases: Sequence[CaseCounts], threshold: float) -> dict[str, float] | None:
    """Return the minimum positive fraction of a slice with infection.

    It maximises the sum of sensitivity and specificity over the slices of volumes; of several
    optima the smallest is taken.

    Returns:
        {"least_share", "sensitivity", "specificity"}; None where volumes do not have slices of both
        kinds, or nothing is marked.
    """
    level = round(threshold * LEVELS)
    volumes = [case for case in cases if not case.picture]
    if not volumes:
        return None
    marked = np.concatenate([case.voxels[:, level:].sum(axis=1) / case.voxels.sum(axis=1) for case in volumes])
    lesion = np.concatenate([case.lesion.sum(axis=1) > 0 for case in volumes])
    bounds = np.unique(marked[marked > 0])
    if lesion.all() or not lesion.any() or not len(bounds):
        return None
    rates = [((marked[lesion] >= bound).mean(), (marked[~lesion] < bound).mean()) for bound in bounds]
    best = int(np.argmax([sum(pair) for pair in rates]))
    names = ("least_share", "sensitivity", "specificity")
    return dict(zip(names, (float(bounds[best]), *map(float, rates[best])), strict=True))


def choose_views_limit(cases: Sequence[CaseCounts], threshold: float) -> dict[str, float] | None:
    """Choose the agreement of the views below which a border is unsure.

    It is the `FLAGGED`th percentile over the cases whose Dice is `GOOD_DICE` or more.

    Returns:
        {"least_percent"; "good", number of those cases; "good_flagged", those of them below;
        "low" and "low_flagged", the same of the other cases with marks; "rank_correlation" of
        agreement and Dice (Spearman)}; None with one view or without good cases.
    """
    level = round(threshold * LEVELS)
    pairs = [(case.views_agree[level], dice_by_level(case)[level]) for case in cases if case.views_agree is not None]
    agree, dice = np.array([pair for pair in pairs if not np.isnan(pair[0])]).reshape(-1, 2).T
    good = dice >= GOOD_DICE
    if not good.any():
        return None
    least = lowest_usual(agree[good])
    below = agree < least
    correlation = float(spearmanr(agree, dice).statistic) if len(set(agree)) > 1 and len(set(dice)) > 1 else 0.0
    return {
        "least_percent": least,
        "good": int(good.sum()),
        "good_flagged": int((good & below).sum()),
        "low": int((~good).sum()),
        "low_flagged": int((~good & below).sum()),
        "rank_correlation": round(correlation, 3),
    }


def lowest_usual(agree: NDArray[np.float64]) -> float:
    """Return the limit of the views' agreement in percent, from that of the good masks, (N,)."""
    return round(float(np.percentile(agree, FLAGGED)), 1)
