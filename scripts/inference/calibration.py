"""The operating point of weights, how far their probabilities can be trusted, and what scans are familiar to them.

All of it is measured on cases that the weights did not see: the validation folds of trainings with
one recipe, each by the weights of its own training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from ..data.datalist import describe, select_cases
from ..data.layouts.case import Case
from ..data.slices import chosen_slices
from ..errors import UserError
from ..files import write_atomic, write_json
from ..io.images import is_picture
from ..networks.registry import same_network
from ..transforms.postprocessing import PRED, EvaluationOutput
from ..transforms.preprocessing import IMAGE, LABEL, check_size
from .metadata import (
    inferer_from_metadata,
    metadata_path,
    preprocessing_from_metadata,
    read_metadata,
    require_slices,
    trained_network,
)
from .ood import Familiarity, FeatureMeans, deepest_layer
from .whole_scan import looked_at, scan_logits

LEVELS = 256
"""Probabilities are counted by floor(256 p): p >= k / 256 is level k or more."""

CANDIDATES = range(LEVELS // 10, LEVELS * 9 // 10)
"""Levels that may become the threshold: 0.1 to 0.9."""

BIN = 16
"""Levels in a bin of the reliability curve."""

FLAT = 0.002
"""Dice within this of the highest is as good: the optimum is flat, and the cases that choose are
few."""

KINDS = (("volumes", False), ("pictures", True))
"""What is averaged apart, and whether its cases are pictures."""

STRANGER = 1.5
"""A scan is called unlike the training data beyond this many times the largest distance of an
unseen case."""


@dataclass(frozen=True)
class CaseCounts:
    """What calibration keeps of a case.

    Attributes:
        name: the case.
        picture: whether it is a single picture and not a volume.
        voxels: (Z, LEVELS) voxels of each slice by level.
        lesion: (Z, LEVELS), those of them that are lesion.
        distance: mean distance of its slices from the training slices of the weights that judged
            it.
    """

    name: str
    picture: bool
    voxels: NDArray[np.int64]
    lesion: NDArray[np.int64]
    distance: float


def count_levels(probability: NDArray[np.float32], label: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts the voxels of each slice, and those with lesion, by their level of probability.

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
    """Dice of a case for each level taken as the threshold, (LEVELS,); 1 where neither side has lesion."""
    predicted, found = (_from_level_on(counts.sum(axis=0)) for counts in (case.voxels, case.lesion))
    both = predicted + found[0]
    return np.divide(2.0 * found, both, out=np.ones(LEVELS), where=both > 0)


def _from_level_on(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of voxels of a level or higher."""
    return np.cumsum(counts[::-1])[::-1]


def dice_of_kinds(cases: Sequence[CaseCounts]) -> dict[str, tuple[NDArray[np.float64], int]]:
    """Mean Dice over "volumes" and over "pictures" for each level taken as the threshold, (LEVELS,), and their number.

    A kind without cases is absent.
    """
    kinds = {kind: [dice_by_level(case) for case in cases if case.picture == picture] for kind, picture in KINDS}
    return {kind: (np.mean(own, axis=0), len(own)) for kind, own in kinds.items() if own}


def choose_threshold(cases: Sequence[CaseCounts]) -> float:
    """The threshold with the highest Dice, volumes and pictures counting alike.

    Of those whose Dice is within `FLAT` of it the one nearest to 0.5 is taken.
    """
    curve = np.mean([dice for dice, _ in dice_of_kinds(cases).values()], axis=0)
    highest = max(curve[level] for level in CANDIDATES)
    good = [level for level in CANDIDATES if curve[level] >= highest - FLAT]
    return min(good, key=lambda level: abs(level - LEVELS // 2)) / LEVELS


def choose_slice_share(cases: Sequence[CaseCounts], threshold: float) -> dict[str, float] | None:
    """The least share of a slice that must be marked for it to count as one with infection.

    It is the share with the largest sum of sensitivity and specificity over the slices of volumes;
    of several the smallest.

    Returns:
        {"least_share", "sensitivity", "specificity"}; None where volumes do not have slices of both
        kinds, or nothing is marked.
    """
    level = round(threshold * LEVELS)
    volumes = [case for case in cases if not case.picture]
    if not volumes:
        return None
    share = np.concatenate([case.voxels[:, level:].sum(axis=1) / case.voxels.sum(axis=1) for case in volumes])
    lesion = np.concatenate([case.lesion.sum(axis=1) > 0 for case in volumes])
    if lesion.all() or not lesion.any():
        return None
    bounds = np.unique(share[share > 0])
    if not len(bounds):
        return None
    rates = [((share[lesion] >= bound).mean(), (share[~lesion] < bound).mean()) for bound in bounds]
    best = int(np.argmax([sum(pair) for pair in rates]))
    names = ("least_share", "sensitivity", "specificity")
    return dict(zip(names, (float(bounds[best]), *map(float, rates[best])), strict=True))


def reliability(cases: Iterable[CaseCounts]) -> list[dict[str, float]]:
    """How often voxels of like probability are lesion: a row for each bin of `BIN` levels that has voxels.

    Returns:
        {"probability": mean of the bin, "observed": share of lesion, "voxels": n}.
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
    """Mean of |observed - probability| over the voxels beyond the first bin, which is background almost throughout."""
    rows = [row for row in curve if row["probability"] >= BIN / LEVELS]
    number = sum(row["voxels"] for row in rows)
    return sum(abs(row["observed"] - row["probability"]) * row["voxels"] for row in rows) / number if number else 0.0


def draw_reliability(curve: Sequence[Mapping[str, float]], error: float) -> FigureCanvasAgg:
    """Draws the reliability curve against the diagonal, and how many voxels each point stands for."""
    figure = Figure(figsize=(5, 5.5), layout="constrained")
    axis, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axis.plot((0, 1), (0, 1), color="grey", linestyle=":")
    points = [row["probability"] for row in curve]
    axis.plot(points, [row["observed"] for row in curve], marker="o")
    axis.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of voxels with infection", title=f"calibration error {error:.3f}")
    below.bar(points, [row["voxels"] for row in curve], width=0.8 * BIN / LEVELS)
    below.set(yscale="log", xlabel="probability", ylabel="voxels")
    return FigureCanvasAgg(figure)


def calibrate(
    weights: Path,
    data: str,
    runs: Sequence[Path],
    flips: bool,
    slices_of_training: int,
    device: torch.device,
    size: int | None = None,
) -> dict[str, Any]:
    """Measures operating point, calibration and familiarity, and states them in the metadata of the weights.

    Beside the metadata it draws the reliability curve (`.calibration.png`) and lists the cases
    (`.calibration.csv`).

    Args:
        weights: whose metadata is completed.
        data: prepared data set that they, and the runs, were trained on.
        runs: weights of trainings with the same recipe, each on another fold; none: `weights`
            alone.
        flips: whether the operating point shall take the mean over mirror images.
        slices_of_training: how many training slices describe what is familiar.
        device: where networks work.
        size: edge length at which slices shall be shown, which may be another one than they were
            trained at (Touvron et al., "Fixing the train-test resolution discrepancy", NeurIPS
            2019); None: as the metadata of the weights says.

    Returns:
        What the metadata now states: "preprocessing", "training", "operating_point", "calibration",
            "familiarity".

    Raises:
        UserError: if the weights are not for slices, metadata disagree about network, preprocessing
            or training, a fold of the data is not that of checkpoint metadata or that of two, or
            networks cannot take the size.
    """
    shown = read_metadata(weights)["preprocessing"]["size"] if size is None else size
    check_size(shown, "size")
    own = _Training(weights, data, flips, slices_of_training, device, shown)
    require_slices(own.metadata, weights)
    trainings = [
        own if run.resolve() == weights.resolve() else _Training(run, data, flips, slices_of_training, device, shown)
        for run in runs or [weights]
    ]
    for training in [own, *trainings]:
        training.check(own.metadata)
    judged = Counter(case["name"] for training in trainings for case in training.unseen)
    if twice := [name for name, number in judged.items() if number > 1]:
        found = f"{len(twice)} cases would be judged by several trainings (folds {[one.fold for one in trainings]})"
        raise UserError(f"{found}; expected: one training of each fold")
    cases = [case for training in trainings for case in training.judge()]
    threshold = choose_threshold(cases)
    slices = choose_slice_share(cases, threshold)
    curve = reliability(cases)
    error = calibration_error(curve)
    limit = STRANGER * max(case.distance for case in cases)
    stated = {
        "preprocessing": own.metadata["preprocessing"],
        "training": own.metadata["training"],
        "operating_point": {
            **own.metadata["operating_point"],
            "threshold": threshold,
            "test_time_flips": flips,
            "least_slice_share": slices["least_share"] if slices else 0.0,
        },
        "calibration": {
            "cases": [case.name for case in cases],
            "trainings": [training.metadata["sha256"] for training in trainings],
            "dice": {
                kind: {
                    "at_threshold": round(float(dice[round(threshold * LEVELS)]), 4),
                    "at_one_half": round(float(dice[LEVELS // 2]), 4),
                    "n": number,
                }
                for kind, (dice, number) in dice_of_kinds(cases).items()
            },
            "slices": slices,
            "calibration_error": round(error, 4),
            "curve": curve,
            "distances": {case.name: round(case.distance, 3) for case in cases},
        },
        "familiarity": Familiarity.of(own.layer, own.features, limit).as_metadata(),
    }
    write_json(metadata_path(weights), {**own.metadata, **stated})
    rows = [
        {
            "case": case.name,
            "kind": next(kind for kind, picture in KINDS if picture == case.picture),
            "dice": dice_by_level(case)[round(threshold * LEVELS)],
            "distance": case.distance,
        }
        for case in cases
    ]
    write_atomic(weights.with_suffix(".calibration.csv"), lambda path: pd.DataFrame(rows).to_csv(path, index=False))
    picture = weights.with_suffix(".calibration.png")
    write_atomic(picture, lambda path: draw_reliability(curve, error).print_png(path))
    return stated


class _Training:
    """The weights of a training, loaded once, before the cases that they learnt from and those they did not.

    Args:
        weights: the weights.
        data: see `calibrate`.
        flips: see `calibrate`.
        count: see `slices_of_training` of `calibrate`.
        device: see `calibrate`.
        size: edge length at which slices are shown.
    """

    def __init__(self, weights: Path, data: str, flips: bool, count: int, device: torch.device, size: int) -> None:
        self.weights, self.data, self.flips, self.count, self.device = weights, data, flips, count, device
        self.network, metadata = trained_network(weights, device)
        trained = {"size": metadata.get("training", metadata["preprocessing"])["size"]}
        self.metadata = {**metadata, "preprocessing": {**metadata["preprocessing"], "size": size}, "training": trained}
        self.fold = metadata["data"].get("fold")

    def check(self, wanted: Mapping[str, Any]) -> None:
        """Refuses another recipe than that of checkpoint metadata, and a fold that is not one of the data."""
        differs = [] if same_network(self.metadata["network"], wanted["network"]) else ["network"]
        differs += [key for key in ("preprocessing", "training") if self.metadata[key] != wanted[key]]
        if differs:
            found = " and ".join(differs)
            raise UserError(f"{self.weights}: another {found}; expected: trainings with the recipe of the weights")
        check_data(self.weights, self.metadata, self.data)

    @cached_property
    def unseen(self) -> list[Case]:
        """The cases of the validation fold."""
        return select_cases(self.data, "validation", self.fold, labelled=True)

    @cached_property
    def layer(self) -> str:
        """The layer whose features are looked at."""
        return deepest_layer(self.network, int(self.metadata["preprocessing"]["size"]))

    @cached_property
    def _means(self) -> FeatureMeans:
        return FeatureMeans(self.network, self.layer)

    @cached_property
    def features(self) -> Tensor:
        """Feature means (N, C) of evenly chosen slices of the training's own cases."""
        self._means.take()
        preprocessing = preprocessing_from_metadata(self.metadata)
        inferer = inferer_from_metadata(self.metadata, 8, self.flips)
        cases = select_cases(self.data, "training", self.fold, labelled=True)
        pictures = sum(is_picture(case["image"]) for case in cases)
        each = max((self.count - pictures) // max(len(cases) - pictures, 1), 1)
        for case in tqdm(cases, desc="training slices", unit="case"):
            item = preprocessing({key: value for key, value in case.items() if key != LABEL})
            inside = np.intersect1d(looked_at(item), chosen_slices(case, item[IMAGE]))
            chosen = inside[np.unique(np.linspace(0, len(inside) - 1, min(each, len(inside))).round().astype(int))]
            scan_logits(item, self.network, inferer, self.device, chosen)
        return self._means.take()

    def judge(self) -> Iterator[CaseCounts]:
        """What the weights say of the cases of their validation fold."""
        learnt = Familiarity.of(self.layer, self.features, limit=0.0)
        for case in tqdm(self.unseen, desc=f"fold {self.fold}", unit="case"):
            (probability,), label = probabilities_and_label(
                case, [self.network], self.metadata, self.flips, self.device
            )
            voxels, lesion = count_levels(probability.numpy(), label.numpy())
            distance = float(learnt.distances(self._means.take()).mean())
            yield CaseCounts(case["name"], is_picture(case[IMAGE]), voxels, lesion, distance)


def probabilities_and_label(
    case: Case, networks: Sequence[nn.Module], metadata: Mapping[str, Any], flips: bool, device: torch.device
) -> tuple[list[Tensor], Tensor]:
    """What networks with one metadata say of a labelled case, and its label: (X, Y, Z) each, on the scan's own grid.

    Z is the number of the case's own "slices" where it has some: others may be what the networks
    were trained on.
    """
    preprocessing = preprocessing_from_metadata(metadata, label_grid="scan")
    inferer, output = inferer_from_metadata(metadata, 8, flips), EvaluationOutput(preprocessing, "scan")
    item = preprocessing(dict(case))
    own = chosen_slices(case, item[IMAGE])
    seen = np.intersect1d(looked_at(item), own)
    logits = [scan_logits(item, network, inferer, device, seen) for network in networks]
    maps = [output({**item, PRED: one})[PRED].as_tensor()[0][..., own] for one in logits]
    return maps, item[LABEL].as_tensor()[0][..., own]


def check_data(weights: Path, metadata: Mapping[str, Any], data: str) -> None:
    """Refuses data of which the weights' validation fold is not one: what they did not see could not be told.

    Raises:
        UserError: if the weights were trained on other data, or on all of them.
    """
    stated = metadata["data"]
    fold = stated.get("fold")
    described = describe(data, fold)
    same = ("name", "split", "seed", "validation_cases", "validation_patients")
    if fold is None or any(stated.get(key) != described[key] for key in same):
        raise UserError(f"{weights}: was validated on fold {fold} of other data; expected: trainings on {data}")
