"""A small scan to change, and how scans are read."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from scripts.pipeline.case import read_case
from scripts.pipeline.inputs import expand_inputs

SHAPE = (24, 20, 7)


def values(seed: int = 0) -> np.ndarray:
    """A scan of air and soft tissue (X, Y, Z) int16."""
    return np.random.default_rng(seed).choice(np.array([-1000, -850, 40], np.int16), SHAPE)


def read_scans(place: Path) -> None:
    """Reads each case of a folder as `segment` does."""
    for case in expand_inputs([place], place.parent / "results"):
        with ExitStack() as stack:
            scan = read_case(case, stack)
            scan.real()
