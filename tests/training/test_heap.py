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


def in_a_process_of_its_own(device: str) -> tuple[int, list[int], int]:
    """Run a training where no earlier test has left holes in the heap, as a user's starts."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(faults_of_a_training, device).result()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_a_training_on_a_cpu_uses_freed_memory_again() -> None:
    usual, faults, after = in_a_process_of_its_own("cpu")
    assert sum(faults[STEPS // 2 :]) < usual / 10
    assert after > usual / 2


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_a_training_elsewhere_leaves_the_memory_alone() -> None:
    usual, faults, _ = in_a_process_of_its_own("meta")
    assert min(faults) > usual / 2
