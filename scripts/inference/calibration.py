"""Complete checkpoint metadata: operating point, reliability and out-of-distribution threshold.

All of it is measured on cases that the weights did not see: the validation folds of trainings with
one recipe, each by the weights of its own training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ..errors import UserError
from ..files import write_atomic, write_json
from ..settings import number
from ..transforms.geometry import check_size
from .backends.choice import TORCH, Backend
from .building import require_slices
from .calibration_run import CalibrationRun
from .lesion_free import describe_marked
from .metadata import CURVE, LESION_FREE, metadata_path, read_metadata
from .ood import KEY, OODScore
from .operating_point import (
    KINDS,
    LEVELS,
    CaseCounts,
    choose_slice_fraction,
    choose_threshold,
    choose_views_limit,
    dice_by_level,
    dice_of_kinds,
)
from .reliability import calibration_error, draw_reliability, reliability
from .tta import stated_flips, view_count

OOD_MARGIN = 1.25
"""The out-of-distribution threshold is this many times the highest score of an unseen case, once of
all cases and once of the volumes."""


def calibrate(
    weights: Path,
    data: str,
    runs: Sequence[Path],
    flips: bool | int,
    slices_of_training: int,
    device: torch.device,
    size: int | None = None,
    backend: Backend = TORCH,
    through_plane_mm: float | None = None,
) -> dict[str, Any]:
    """Measure operating point, reliability and OOD threshold, and write them into the metadata.

    On volumes without infection it measures how much is marked, by weights that did not see them.
    Beside the metadata it draws the reliability curve (`.calibration.png`) and lists the cases
    (`.calibration.csv`).

    Args:
        weights: whose metadata is completed.
        data: prepared data set that they, and the runs, were trained on.
        runs: weights of trainings with the same recipe, each on another fold; none: `weights`
            alone.
        flips: test-time augmentation by flips of the operating point, see `view_count`.
        slices_of_training: number of training slices that the out-of-distribution score is built
            on.
        device: where networks work.
        size: edge length of the network's input, which may differ from that of the training
            (Touvron et al., "Fixing the train-test resolution discrepancy", NeurIPS 2019); None: as
            the metadata of the weights says.
        backend: what applies the networks.
        through_plane_mm: averages over neighbouring slices, see `neighbour_weights`; None: as the
            metadata of the weights says.

    Returns:
        The entries that were written: "preprocessing", "training", "operating_point",
        "calibration", "familiarity".

    Raises:
        UserError: if the weights are not for slices, metadata disagree about network, preprocessing
            or training, a fold of the data is not that of checkpoint metadata or that of two, or
            networks cannot take the size.
    """
    metadata = read_metadata(weights)
    shown = metadata["preprocessing"]["size"] if size is None else size
    check_size(shown, "size")
    sigma = metadata["operating_point"]["through_plane_mm"] if through_plane_mm is None else through_plane_mm
    sigma = number("through_plane_mm", sigma, "mm, 0 to 20", lambda one: 0 <= one <= 20)
    settings = data, flips, slices_of_training, device, shown, backend, sigma
    own = CalibrationRun(weights, *settings)
    require_slices(own.metadata, weights)
    trainings = [
        own if run.resolve() == weights.resolve() else CalibrationRun(run, *settings) for run in runs or [weights]
    ]
    _check_recipes(own, trainings)
    cases = [case for training in trainings for case in training.count_unseen()]
    threshold = choose_threshold(cases)
    slices, views = choose_slice_fraction(cases, threshold), choose_views_limit(cases, threshold)
    curve = reliability(cases)
    error = calibration_error(curve)
    point = {
        "threshold": threshold,
        "test_time_flips": stated_flips(view_count(flips)),
        "least_slice_share": slices["least_share"] if slices else 0.0,
        "least_views_agree_percent": views["least_percent"] if views else None,
    }
    smallest = own.metadata["operating_point"]["smallest_lesion_mm3"]
    marked = [one for training in trainings for one in training.mark_lesion_free(threshold, smallest)]
    scores = {case.name: case.ood_score for case in cases if case.ood_score is not None}
    volumes = [scores[case.name] for case in cases if case.name in scores and not case.picture]
    if not scores:
        raise UserError(f"{data}: no slice of the cases lies in the field of view; expected: cases that show the lungs")
    limits = OOD_MARGIN * max(scores.values()), OOD_MARGIN * max(volumes) if volumes else None
    ood = OODScore.of(own.layers, own.features, *limits)
    stated = {
        "preprocessing": own.metadata["preprocessing"],
        "training": own.metadata["training"],
        "operating_point": {**own.metadata["operating_point"], **point},
        "calibration": {
            "cases": [case.name for case in cases],
            "trainings": [training.metadata["sha256"] for training in trainings],
            "dice": _dice(cases, threshold),
            "slices": slices,
            "views": views,
            LESION_FREE: describe_marked(marked),
            "calibration_error": round(error, 4),
            CURVE: curve,
            "distances": {name: round(score, 3) for name, score in scores.items()},
        },
        KEY: ood.as_metadata(),
    }
    write_json(metadata_path(weights), {**own.metadata, **stated})
    table = pd.DataFrame([_row(case, threshold) for case in cases])
    write_atomic(weights.with_suffix(".calibration.csv"), lambda path: table.to_csv(path, index=False))
    write_atomic(weights.with_suffix(".calibration.png"), lambda path: draw_reliability(curve, error, path))
    return stated


def _check_recipes(own: CalibrationRun, trainings: Sequence[CalibrationRun]) -> None:
    """Refuse trainings of another recipe, and cases that lie in several validation folds."""
    for training in [own, *trainings]:
        training.check(own.metadata)
    counted = Counter(case["name"] for training in trainings for case in training.unseen)
    if twice := [name for name, number in counted.items() if number > 1]:
        found = f"{len(twice)} cases would be judged by several trainings (folds {[one.fold for one in trainings]})"
        raise UserError(f"{found}; expected: one training of each fold")


def _dice(cases: Sequence[CaseCounts], threshold: float) -> dict[str, dict[str, float]]:
    return {
        kind: {
            "at_threshold": round(float(dice[round(threshold * LEVELS)]), 4),
            "at_one_half": round(float(dice[LEVELS // 2]), 4),
            "n": number,
        }
        for kind, (dice, number) in dice_of_kinds(cases).items()
    }


def _row(case: CaseCounts, threshold: float) -> dict[str, Any]:
    kind = next(kind for kind, picture in KINDS if picture == case.picture)
    dice = dice_by_level(case)[round(threshold * LEVELS)]
    agree = None if case.views_agree is None else case.views_agree[round(threshold * LEVELS)]
    return {"case": case.name, "kind": kind, "dice": dice, "distance": case.ood_score, "views_agree_percent": agree}
