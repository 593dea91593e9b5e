"""Several processes of one group, each doing the work of its rank."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from tests import forked


def run_ranks(work: Callable[[int, Path], object], world: int, folder: Path) -> None:
    """Does `work(rank, folder)` for every rank at a time; all of them must end well."""
    said = [folder / f"{rank}.txt" for rank in range(world)]
    processes = [forked.start(partial(work, rank, folder), said[rank]) for rank in range(world)]
    for process in processes:
        process.join(120)
    for process in processes:
        process.kill()
        process.join()
    errors = "\n".join(one.read_text() for one in said)
    assert [process.exitcode for process in processes] == [0] * world, errors


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
