"""Claim an output folder, and say what an interrupted run leaves there.

A claim writes nothing: a run that fails before it has a result, for want of data for instance,
leaves no folder behind and removes no earlier run.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import UserError
from ..files import locked

LAST = "last.pt"
BEST = "model.pt"
RUN_FILES = (LAST, BEST, "model.json", "history.csv", "curve.png")
CURVES = "tensorboard"


def claim_run_folder(
    output_dir: str, resume: bool, overwrite: bool, rank: int = 0, checkpoint: str | None = None
) -> None:
    """Refuse a folder that holds a training run, unless that run is to be resumed or replaced.

    Args:
        output_dir: folder of the run.
        resume: go on with the run in the folder; a folder without one starts anew.
        overwrite: replace the run in the folder, see `clear_run_folder`.
        rank: see `claim_folder`.
        checkpoint: weights that the training starts from.

    Raises:
        UserError: if the folder holds a run and neither is set, or both are, if the weights to
            start from are those of the run that would be replaced, or the folder cannot be written.
    """
    if resume and overwrite:
        raise UserError("resume and overwrite are both true; expected: one of them")
    if overwrite and checkpoint is not None and Path(checkpoint).resolve().parent == Path(output_dir).resolve():
        raise UserError(f"{checkpoint}: lies in the run that --overwrite would remove; expected: another --output_dir")
    files = () if resume else RUN_FILES
    claim_folder(output_dir, files, overwrite, rank, ", --resume true to go on with it")


def clear_run_folder(output_dir: str, overwrite: bool, rank: int = 0) -> None:
    """Remove an earlier run that is to be replaced.

    A killed run must not resume from its state. The call belongs right before the training, when
    all that the training needs has been found.

    Only rank 0 of a distributed training removes.

    Raises:
        UserError: if that run still goes on.
    """
    if overwrite and rank == 0 and Path(output_dir).is_dir():
        with locked(output_dir, wait=False):
            for name in RUN_FILES:
                (Path(output_dir) / name).unlink(missing_ok=True)
            shutil.rmtree(Path(output_dir) / CURVES, ignore_errors=True)


def claim_folder(output_dir: str, files: Sequence[str] | None, overwrite: bool, rank: int = 0, hint: str = "") -> None:
    """Refuse a folder that holds results, unless they are to be replaced, file by file.

    Args:
        output_dir: the folder; it need not exist.
        files: names of the results; None: whatever is in the folder.
        overwrite: whether results may be replaced.
        rank: process of a distributed run; only rank 0 looks.
        hint: what else the user may do about it, for the message.

    Raises:
        UserError: if the folder holds results and `overwrite` is false, or if it cannot be written.
    """
    folder = Path(output_dir)
    if rank > 0:
        return
    _require_writable(folder)
    found = folder.iterdir() if folder.is_dir() else ()
    used = sorted(path.name for path in found if files is None or path.name in files)
    if used and not overwrite:
        raise UserError(
            f"{folder}: holds results already ({', '.join(used[:3])}{', ...' if len(used) > 3 else ''}); expected: "
            f"another --output_dir{hint}, or --overwrite true to replace them"
        )


def kept_of_training(output_dir: str) -> str:
    """Say in one line what a training that is interrupted leaves."""
    last = Path(output_dir) / LAST
    if not last.exists():
        return f"no state was saved in {output_dir} yet; the same command starts again at the first epoch"
    epoch = torch.load(last, map_location="cpu", weights_only=True, mmap=True)["epoch"]
    return f"{last} keeps the state after epoch {epoch}; the same command with --resume true continues from there"


def kept_of_scheme(output_dir: str) -> str:
    """Say in one line what a scheme of several trainings that is interrupted leaves."""
    return f"{output_dir} keeps the trainings so far; the same command with --resume true continues from there"


def kept_of_evaluation(output_dir: str) -> str:
    """Say in one line what an evaluation that is interrupted leaves."""
    return f"no table was written to {output_dir}; the same command starts again"


def kept_of_inference(output_dir: str) -> str:
    """Say in one line what an inference that is interrupted leaves."""
    return f"the masks in {output_dir} are complete; the same command with --overwrite true makes all of them"


def _require_writable(folder: Path) -> None:
    """Look at the folder or, where it does not exist, at what it would be made in."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise UserError(f"{folder}: {place} is a file; expected: a folder for --output_dir")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: {place} cannot be written; expected: an --output_dir that you may write to")
