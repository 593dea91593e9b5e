from __future__ import annotations

import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from ignite.engine import Engine

from scripts.training.heap import KeepFreedMemory

MEGABYTES = 64
STEPS = 12
"""The first ones may still fill pages: the next tensor wants a little more than was freed."""


def page_faults() -> int:
    """Page faults of filling a large tensor that is freed again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(MEGABYTES * 2**20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def faults_of_a_training(device: str) -> tuple[int, list[int], int]:
    """Page faults before a training, in each of its steps, and after it."""
    faults: list[int] = []
    trainer = Engine(lambda engine, batch: faults.append(page_faults()))
    trainer.state.device = torch.device(device)
    KeepFreedMemory().attach(trainer)
    before = page_faults()
    trainer.run(range(STEPS))
    return before, faults, page_faults()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_a_training_on_a_cpu_alone_uses_freed_memory_again() -> None:
    # A process of its own: in the holes that earlier tests leave in a heap no tensor finds a place.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        _, elsewhere, _ = pool.submit(faults_of_a_training, "meta").result()
        usual, faults, after = pool.submit(faults_of_a_training, "cpu").result()
    assert min(elsewhere) > usual / 2
    assert sum(faults[STEPS // 2 :]) < usual / 10
    assert after > usual / 2
