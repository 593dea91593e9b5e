"""Time calls in turns, so that a machine whose speed drifts slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

Row = dict[str, Any]
"""What is measured, such as network, backend and precision, and its figures."""


@dataclass(frozen=True)
class Plan:
    """The settings of a run.

    Attributes:
        out: folder of the results.
        device: where networks work.
        rounds: how often everything is measured.
        widths: base widths of the networks.
        size: rows and columns of a slice as the network sees it.
        batch: slices in a call.
        scan: what `segment` is given; None: a phantom.
    """

    out: Path
    device: torch.device
    rounds: int = 5
    widths: tuple[int, ...] = (16, 64)
    size: int = 224
    batch: int = 8
    scan: Path | None = None


def in_turns(rows: Sequence[Row], calls: Sequence[Callable[[], object]], plan: Plan) -> Iterator[None]:
    """Time every call once per round and append to the row's "seconds"; yield after every round.

    A call is repeated for 0.2 seconds, after one that warms up. On CUDA a row also gets "gpu_gb",
    the memory that a call takes on top of all networks.
    """
    from torch.utils.benchmark import Timer  # importing it changes sys.path

    threads, cuda = torch.get_num_threads(), plan.device.type == "cuda"
    clock = time.perf_counter if plan.device.type == "cpu" else partial(_when_done, plan.device)
    with tqdm(total=plan.rounds * len(rows), leave=False) as bar:
        for _ in range(plan.rounds):
            for row, call in zip(rows, calls, strict=True):
                bar.set_description(f"{row['network']}, {row['backend']}, {row['precision']}")
                if cuda:
                    torch.cuda.reset_peak_memory_stats(plan.device)
                before = torch.cuda.memory_allocated(plan.device) if cuda else 0
                # torch's default: one thread, and to wait for the current accelerator
                timed = Timer("call()", globals={"call": call}, num_threads=threads, timer=clock)
                row.setdefault("seconds", []).append(timed.blocked_autorange().median)
                if cuda:
                    row["gpu_gb"] = (torch.cuda.max_memory_allocated(plan.device) - before) / 1e9
                bar.update()
            yield


def _when_done(device: torch.device) -> float:
    """Return the time when a device has done what it was given, which torch does not wait for."""
    torch.accelerator.synchronize(device)
    return time.perf_counter()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return how many values there are, the least and the median.

    >>> spread([3.0, 1.0, 2.0])
    {'n': 3, 'min': 1.0, 'median': 2.0}
    """
    return {"n": len(values), "min": min(values), "median": median(values)}


def ratio(values: Sequence[float], reference: Sequence[float]) -> float:
    """Return the median over the rounds of a value over the reference's of the same round.

    >>> ratio([2.0, 30.0, 2.0], [4.0, 60.0, 8.0])
    0.5
    """
    return median(one / other for one, other in zip(values, reference, strict=True))
