"""Choose the cases that a trained network teaches another one on, each with its probabilities."""

import logging
from pathlib import Path
from typing import Any

import torch

from ..data.datalist import Fold, select_cases
from ..errors import UserError
from ..files import locked
from ..inference.backends.choice import choose_backend
from ..inference.building import require_slices
from ..inference.tta import view_count
from ..settings import optional
from .pseudo_labels import SCALE, check_teacher, confidence_from, confident, map_folder, write_pseudo_labels

logger = logging.getLogger(__name__)


def teacher_of_fold(teacher: str | None, fold: Fold) -> str:
    """Return a teacher's weights, where "{fold}" in their path stands for the fold.

    Raises:
        UserError: without a teacher.
    """
    if optional(teacher) is None:
        raise UserError("teacher is null; expected: the weights that teach, such as --teacher FULL/model.pt")
    return str(teacher).replace("{fold}", str(fold))


def taught_cases(
    dataset_dir: str,
    fold: Fold,
    teacher: str,
    folder: str,
    device: str | torch.device,
    views: int | None = None,
    confidence: float = 0.0,
    more_labels: bool = False,
    held_out: str | None = None,
) -> list[dict[str, Any]]:
    """Choose the training cases of a fold and unlabelled ones, and give each its soft map.

    The maps lie in a subfolder of `folder`, on the scans' own grids. Those that an earlier call
    left there, finished or stopped, are not made again; other processes wait for the first.

    Args:
        dataset_dir: see `select_cases`.
        fold: validation fold, see `select_cases`.
        teacher: weights that left out the same fold.
        folder: where maps are kept.
        device: where the teacher works, with the fastest backend there.
        views: see `view_count`; None: as the teacher's metadata say.
        confidence: see `confident`; only unlabelled slices are left out.
        more_labels: see `select_cases`.
        held_out: see `select_cases`.

    Returns:
        The cases, with "soft" and "soft_scale"; unlabelled ones have no "label".

    Raises:
        UserError: see `check_teacher` and `select_cases`, and for a teacher that sees no slices.
    """
    least = confidence_from(confidence)
    require_slices(check_teacher(teacher, dataset_dir, fold), teacher)
    labelled = select_cases(dataset_dir, "training", fold, more_labels=more_labels, held_out=held_out)
    unlabelled = select_cases(dataset_dir, "unlabeled", fold, may_be_empty=True, held_out=held_out)
    cases, count = [*labelled, *unlabelled], None if views is None else view_count(views, "teacher_views")
    target, place = map_folder(folder, teacher, cases, count), torch.device(device)
    with locked(target):
        maps = write_pseudo_labels(Path(teacher), cases, target, place, count, choose_backend(device=place))
    known = len(labelled)
    sure = [*confident(unlabelled, maps[known:], least)]
    logger.info(f"taught on {known} labelled cases and {len(sure)} of {len(unlabelled)} unlabelled ones, {target}")
    pairs = [*zip(labelled, maps[:known], strict=True), *sure]
    return [{**case, "soft": str(path), "soft_scale": SCALE} for case, path in pairs]
