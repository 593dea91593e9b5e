"""Make labels for unlabelled cases by a trained network."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ..data.layouts.case import Case
from ..files import fit_name, write_atomic
from ..inference.building import preprocessing_from_metadata
from ..inference.predictor import Predictor
from ..io.images import is_picture
from ..io.nifti.writing import header_from_affine, write_bytes
from ..io.reading import read_grid, read_label
from ..transforms.items import IMAGE, PRED
from ..transforms.postprocessing import ScanProbabilities

SCALE = 255
"""Probabilities are stored in a byte; this value is 1."""
DOUBTFUL = 0.1
"""Lowest probability of the pixels that a slice's confidence is measured on."""


def write_pseudo_labels(checkpoint: Path, cases: Sequence[Case], folder: Path, device: torch.device) -> list[Path]:
    """Write a network's probabilities for cases on their own grids; keep existing files.

    The folder receives NAME.png for a picture, NAME.nii.gz for a volume: uint8, 255 is the
    probability 1.

    Returns:
        The paths, in the order of the cases.
    """
    suffixes = [".png" if is_picture(case["image"]) else ".nii.gz" for case in cases]
    paths = [folder / fit_name(case["name"], suffix) for case, suffix in zip(cases, suffixes, strict=True)]
    missing = [(case, path) for case, path in zip(cases, paths, strict=True) if not path.exists()]
    if missing:
        predicted = _predict(checkpoint, [case for case, _ in missing], device)
        for (case, path), levels in zip(tqdm(missing, desc="pseudo labels", unit="case"), predicted, strict=True):
            write_atomic(path, partial(_write, levels, case["image"]))
    return paths


def _predict(checkpoint: Path, cases: Sequence[Case], device: torch.device) -> Iterator[NDArray[np.uint8]]:
    predictor = Predictor.load(checkpoint, device)
    preprocessing = preprocessing_from_metadata(predictor.metadata)
    back = ScanProbabilities(preprocessing)
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

    The confidence of a slice is the mean of max(p, 1 - p) over its pixels with p >= 0.1, and 1
    where there are none: a network that is sure that there is no lesion.

    Args:
        cases: unlabelled cases.
        labels: what `write_pseudo_labels` wrote for them.
        soft: whether the probabilities are the label; else the mask where they reach the threshold.
        threshold: see `soft`.
        confidence: slices of less are left out, in [0.5, 1]; 0 keeps all of them.

    Returns:
        The cases with "label" and "pseudo"; a case without a confident slice is not among them.
    """
    levels = {"label_scale": SCALE} if soft else {"label_codes": list(range(math.ceil(threshold * SCALE), SCALE + 1))}
    found = []
    for case, label in zip(cases, labels, strict=True):
        labelled = {**case, **levels, "label": str(label), "pseudo": True, "fold": None}
        if confidence > 0:
            sure = _confident_slices(label, confidence)
            chosen = [z for z in case.get("slices", range(len(sure))) if sure[z]]
            if not chosen:
                continue
            if len(sure) > 1:
                labelled["slices"] = chosen
        found.append(Case(**labelled))  # type: ignore[typeddict-item]
    return found


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
