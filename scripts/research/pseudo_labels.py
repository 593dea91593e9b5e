"""Make labels for unlabelled cases by a trained network."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ..data.datalist import Fold, describe
from ..data.layouts.case import Case
from ..data.slice_cache import case_content
from ..errors import UserError
from ..files import digest, fit_name, write_atomic
from ..inference.backends.choice import TORCH, Backend
from ..inference.building import preprocessing_from_metadata
from ..inference.metadata import read_metadata
from ..inference.predictor import Predictor
from ..io.images import is_picture
from ..io.nifti.writing import header_from_affine, write_bytes
from ..io.reading import read_grid, read_label
from ..settings import number
from ..training.fine_tuning import left_out_otherwise
from ..transforms.items import IMAGE, LUNG, PRED
from ..transforms.postprocessing import ScanProbabilities

SCALE = 255
"""Probabilities are stored in a byte; this value is 1."""
DOUBTFUL = 0.1
"""Lowest probability of the pixels that a slice's confidence is measured on."""


def check_teacher(weights: str | Path, dataset_dir: str, fold: Fold) -> dict[str, Any]:
    """Read the metadata of weights that label; refuse those that saw what a fold validates on.

    Weights of a data set that shares no part of its name with this one are taken as they are, and
    so are all where nothing is validated.

    Raises:
        UserError: if the weights, or any that they started from or learnt from, left out another
            fold, or a fold of another list of the same data.
    """
    metadata = read_metadata(weights)
    if found := left_out_otherwise(metadata, describe(dataset_dir, fold)):
        raise UserError(
            f"{weights}: trained with {found} left out, so it knows the validation cases of fold {fold}; "
            "expected: a teacher of the same fold"
        )
    return metadata


def map_folder(folder: str, weights: str, cases: Sequence[Case], *settings: Any) -> Path:
    """Return the subfolder for maps of cases by weights.

    It is a new one for other weights, another way of applying them, other images or lung masks,
    another intensity of a case, or other code that preprocesses.
    """
    seen = [(case["name"], case_content(case, (IMAGE, LUNG), ("intensity",))) for case in cases]
    metadata = read_metadata(weights)
    applied = [metadata["operating_point"][key] for key in ("test_time_flips", "through_plane_mm")]
    key = digest([metadata["sha256"], metadata["preprocessing"], applied, seen, *settings])
    return Path(folder).resolve() / key[:16]


def write_pseudo_labels(
    checkpoint: Path,
    cases: Sequence[Case],
    folder: Path,
    device: torch.device,
    test_time_flips: bool | int | None = None,
    backend: Backend = TORCH,
) -> list[Path]:
    """Write a network's probabilities for cases on their own grids; keep existing files.

    The folder receives NAME.png for a picture, NAME.nii.gz for a volume: uint8, 255 is the
    probability 1. What follows the device are arguments of `Predictor`.

    Returns:
        The paths, in the order of the cases.
    """
    suffixes = [".png" if is_picture(case["image"]) else ".nii.gz" for case in cases]
    paths = [folder / fit_name(case["name"], suffix) for case, suffix in zip(cases, suffixes, strict=True)]
    missing = [(case, path) for case, path in zip(cases, paths, strict=True) if not path.exists()]
    if missing:
        predictor = Predictor.load(checkpoint, device, test_time_flips, backend)
        predicted = _predict(predictor, [case for case, _ in missing])
        for (case, path), levels in zip(tqdm(missing, desc="pseudo labels", unit="case"), predicted, strict=True):
            write_atomic(path, partial(_write, levels, case["image"]))
    return paths


def _predict(predictor: Predictor, cases: Sequence[Case]) -> Iterator[NDArray[np.uint8]]:
    preprocessing = preprocessing_from_metadata(predictor.metadata)
    back = ScanProbabilities(preprocessing, predictor.metadata["operating_point"]["through_plane_mm"])
    for case in cases:
        item = preprocessing(dict(case))
        item[PRED] = MetaTensor(predictor.scan_logits(item), meta=dict(item[IMAGE].meta))
        yield (back(item)[PRED][0] * SCALE).round().to(torch.uint8).cpu().numpy()


def _write(levels: NDArray[np.uint8], image: str, path: Path) -> None:
    if is_picture(image):
        Image.fromarray(np.ascontiguousarray(levels[..., 0].T)).save(path)
        return
    affine = read_grid(Path(image)).affine
    assert affine is not None  # only pictures have none
    x, y, z = levels.shape
    header = header_from_affine(affine, (x, y, z))
    write_bytes(header, lambda k: levels[..., k], path, "probability of infection times 255")


def pseudo_labelled(
    cases: Sequence[Case], labels: Sequence[Path], soft: bool, threshold: float = 0.5, confidence: float = 0.0
) -> list[Case]:
    """Turn cases and their probabilities into training cases that are in no validation fold.

    Args:
        cases: unlabelled cases.
        labels: what `write_pseudo_labels` wrote for them.
        soft: whether the probabilities are the label; else the mask where they reach the threshold.
        threshold: see `soft`.
        confidence: see `confident`.

    Returns:
        The cases with "label" and "pseudo"; a case without a confident slice is not among them.
    """
    levels = {"label_scale": SCALE} if soft else {"label_codes": list(range(math.ceil(threshold * SCALE), SCALE + 1))}
    return [
        Case(**{**case, **levels, "label": str(label), "pseudo": True, "fold": None})  # type: ignore[typeddict-item]
        for case, label in confident(cases, labels, confidence)
    ]


def confidence_from(value: float | str) -> float:
    """Read the setting `confidence`, see `confident`; UserError for one that makes no sense."""
    return number("confidence", value, "0, or 0.5 to 1", lambda one: one == 0 or 0.5 <= one <= 1)


def confident(cases: Sequence[Case], maps: Sequence[Path], confidence: float) -> Iterator[tuple[Case, Path]]:
    """Yield cases, restricted to the slices that a network is sure of, with their probabilities.

    The confidence of a slice is the mean of max(p, 1 - p) over its pixels with p >= 0.1, and 1
    where there are none: a network that is sure that there is no lesion.

    Args:
        cases: unlabelled cases.
        maps: what `write_pseudo_labels` wrote for them.
        confidence: slices of less are left out, in [0.5, 1], and cases without any; 0 keeps all.
    """
    for case, path in zip(cases, maps, strict=True):
        if confidence == 0:
            yield case, path
            continue
        sure = _confident_slices(path, confidence)
        chosen = [z for z in case.get("slices", range(len(sure))) if sure[z]]
        if chosen:
            yield ({**case, "slices": chosen} if len(sure) > 1 else case), path


def _confident_slices(label: Path, confidence: float) -> NDArray[np.bool_]:
    """Return whether each slice along the stored third axis is confident."""
    levels = read_label(label)
    stack = levels if levels.ndim == 3 else levels[..., None]
    probability = stack.reshape(-1, stack.shape[2]) / SCALE
    doubtful = probability >= DOUBTFUL
    sure = np.maximum(probability, 1 - probability)
    count = doubtful.sum(axis=0)
    means = np.divide((sure * doubtful).sum(axis=0), count, out=np.ones(stack.shape[2]), where=count > 0)
    return np.asarray(means >= confidence)
