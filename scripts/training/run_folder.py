"""Who may write into an output folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from scripts.errors import UserError
from scripts.settings import flag

LAST = "last.pt"
BEST = "model.pt"
RUN_FILES = (LAST, BEST, "model.json", "history.csv", "curve.png")
CURVES = "tensorboard"


def claim_run_folder(output_dir: str, resume: bool | str, overwrite: bool | str, rank: int = 0) -> None:
    """Refuses a folder that holds a training run, unless that run is to be resumed or replaced.

    Args:
        output_dir: folder of the run; made if absent.
        resume: go on with the run in the folder; a folder without one starts anew.
        overwrite: remove the run in the folder.
        rank: process of a distributed training; only rank 0 looks and removes.

    Raises:
        UserError: if the folder holds a run and neither is set, or both are.
    """
    if flag(resume) and flag(overwrite):
        raise UserError("resume and overwrite are both true; accepted: one of them")
    if not flag(resume):
        hint = ", --resume true to go on with it"
        claim_folder(output_dir, RUN_FILES, overwrite, rank, hint)
        if flag(overwrite) and rank == 0:
            shutil.rmtree(Path(output_dir) / CURVES, ignore_errors=True)


def claim_folder(
    output_dir: str, files: Sequence[str] | None, overwrite: bool | str, rank: int = 0, hint: str = ""
) -> None:
    """Refuses a folder that holds results, unless they are to be replaced.

    Args:
        output_dir: the folder; made if absent.
        files: names of the results, removed on overwriting; None: whatever is in the folder, replaced file by file.
        overwrite: whether results may be replaced.
        rank: process of a distributed run; only rank 0 looks and removes.
        hint: what else the user may do about it, for the message.

    Raises:
        UserError: if the folder holds results and `overwrite` is false.
    """
    folder = Path(output_dir)
    if rank > 0:
        return
    folder.mkdir(parents=True, exist_ok=True)
    used = sorted(path.name for path in folder.iterdir() if files is None or path.name in files)
    if used and not flag(overwrite):
        raise UserError(
            f"{folder}: holds results already ({', '.join(used[:3])}{', ...' if len(used) > 3 else ''}); accepted: "
            f"another --output_dir{hint}, or --overwrite true to replace them"
        )
    for name in used if files is not None else ():
        (folder / name).unlink()
