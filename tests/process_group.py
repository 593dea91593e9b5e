"""Several processes of one group, each running the file of a test as its program."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import torch

ROOT = Path(__file__).resolve().parents[1]


def run_ranks(program: str, world: int, folder: Path) -> None:
    """Runs `python PROGRAM RANK FOLDER` for every rank at a time; all of them must end well."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, program, str(rank), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * world, "\n".join(errors)


def leave(rank: int, world: int, folder: Path, result: Any) -> NoReturn:
    """Saves what a rank found as RANK.pt and ends it, once all have saved theirs.

    Nothing is torn down: gloo now and then hangs or aborts there, after all work is done.
    """
    torch.save(result, folder / f"{rank}.part")
    (folder / f"{rank}.part").rename(folder / f"{rank}.pt")
    deadline = time.monotonic() + 60
    while not all((folder / f"{other}.pt").exists() for other in range(world)) and time.monotonic() < deadline:
        time.sleep(0.02)
    os._exit(0)
