from __future__ import annotations

import resource
import sys

import pytest
import torch
from ignite.engine import Engine

from scripts.training.heap import KeepFreedMemory

MEGABYTES = 64


def page_faults() -> int:
    """Page faults of filling a large tensor that is freed again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(MEGABYTES * 2**20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_a_training_on_a_cpu_uses_freed_memory_again() -> None:
    faults: list[int] = []
    trainer = Engine(lambda engine, batch: faults.append(page_faults()))
    trainer.state.device = torch.device("cpu")
    KeepFreedMemory().attach(trainer)
    usual = page_faults()
    trainer.run(range(3))
    page_faults()
    assert faults[-1] < usual / 10
    assert page_faults() > usual / 2
