"""Processes that are forked from one that has imported what programs of the tests import.

For what needs a process of its own, to be killed or to be one of a group, but no Python that starts
anew, which takes ten seconds to import torch and MONAI.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
PRELOADED = [
    "tests.bundle_runner",
    "tests.conftest",
    "tests.equal_results",
    "tests.fuzz.run",
    "matplotlib.pyplot",
    "monai.bundle",
    "monai.handlers",
    "scripts.inference.publishing",
    "scripts.pipeline.case",
    "scripts.report.html",
    "scripts.training.runner",
]


def context() -> ForkServerContext:
    """Where `Process` is such a process; the first one starts that which it is forked from."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    return found


def start(work: Callable[[], object], output: Path) -> ForkServerProcess:
    """Starts work, which can be pickled, in a session of its own; what it prints goes to a file.

    An exception is printed and ends it with exit code 1.
    """
    process = context().Process(target=_work, args=(work, output, dict(os.environ)))
    process.start()
    return process


def run(work: Callable[[], object], output: Path) -> int:
    """Does work in a process of its own; returns its exit code."""
    process = start(work, output)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _work(work: Callable[[], object], output: Path, environment: Mapping[str, str]) -> None:
    os.setsid()
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    sink = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    code = 1
    try:
        code = work() or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
