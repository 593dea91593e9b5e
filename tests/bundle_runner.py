"""`monai.bundle run` for the tests: in this process,
or in one of its own where the process is what is tested."""

from __future__ import annotations

import io
import logging
import os
import random
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from fire.parser import DefaultParseValue
from monai.bundle import ConfigWorkflow, create_workflow

from scripts.__main__ import main
from scripts.errors import find_user_error
from scripts.training.curves import Curves

ROOT = Path(__file__).resolve().parent.parent
NARROW = {
    "network_def#base_width": 4,
    "spatial_size": 32,
    "batch_size": 4,
    "max_epochs": 2,
    "device": "cpu",
    "learning_rate": 0.01,
}


@dataclass
class Done:
    """How a run ended."""

    returncode: int
    stdout: str
    stderr: str


def bundle_command(run_id: str, config: str, **settings: object) -> list[str]:
    """The command line of a run."""
    options = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    return [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", config, *options]


def environment() -> dict[str, str]:
    """The environment of a process on the CPU with one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def heed_ctrl_c() -> None:
    """`preexec_fn` of a process: a shell that runs the tests in the background has made it deaf."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_process(command: Sequence[object], cwd: Path = ROOT, ok: bool = True) -> Done:
    """Runs a command line; fails unless told that it may fail."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 or not ok, done.stdout[-3000:] + done.stderr[-3000:]
    return Done(done.returncode, done.stdout, done.stderr)


def run_bundle_process(run_id: str, config: str, ok: bool = True, cwd: Path = ROOT, **settings: object) -> Done:
    """Runs `python -m monai.bundle run` in a process of its own."""
    return run_process(bundle_command(run_id, config, **settings), cwd, ok)


def run_bundle(run_id: str, config: str, ok: bool = True, cwd: Path = ROOT, **settings: object) -> Done:
    """Does what the command line does,
    without the six seconds that a process takes to import its packages.

    Values are read as the runner reads the words of a command line. A user's mistake ends the
    captured standard error, as the runner's last line would.
    """
    values = {key: DefaultParseValue(str(value)) for key, value in settings.items()}
    out, err = io.StringIO(), io.StringIO()
    failed: Exception | None = None
    with chdir(cwd), unchanged_process(), redirect_stdout(out), redirect_stderr(err):
        try:
            _run(run_id, DefaultParseValue(config), values)
        except Exception as error:
            failed = error
            mistake = find_user_error(error)
            print(f"error: {mistake}" if mistake else traceback.format_exc(), file=sys.stderr)
    assert failed is None or not ok, out.getvalue()[-3000:] + "".join(traceback.format_exception(failed))
    return Done(int(failed is not None), out.getvalue(), err.getvalue())


def run_inference(scan: Path, weights: Path, out: Path, **settings: object) -> Path:
    """Segments one scan by `run inference` on the CPU; returns the path of the mask."""
    paths = {"dataset_dir": scan, "checkpoint": weights, "output_dir": out}
    run_bundle("inference", "configs/inference.yaml", device="cpu", **paths, **settings)
    (mask,) = out.iterdir()
    return mask


def run_command(*words: object, ok: bool = True) -> Done:
    """Runs `python -m scripts` in this process; fails unless told that it may fail."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    arguments = ["scripts", *map(str, words)]
    with chdir(ROOT), mock.patch.object(sys, "argv", arguments), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    assert code == 0 or not ok, err.getvalue()[-3000:]
    return Done(code, out.getvalue(), err.getvalue())


def _run(run_id: str, config: object, values: dict[str, object]) -> None:
    """`monai.bundle.run`, which keeps its workflow to itself;
    TensorBoard's writer has a thread until it is closed."""
    workflow = create_workflow(config_file=config, run_id=run_id, **values)
    assert isinstance(workflow, ConfigWorkflow)
    try:
        workflow.run()
        workflow.finalize()
    finally:
        for made in workflow.parser.ref_resolver.resolved_content.values():
            if isinstance(made, Curves):
                made.close()


@contextmanager
def unchanged_process() -> Iterator[None]:
    """One thread for torch; logging,
    random states and torch's switches are afterwards what they were."""
    threads, log = torch.get_num_threads(), logging.getLogger()
    handlers, level = list(log.handlers), log.level
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002, MONAI seeds it
    switches = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "parsing config_file")
            yield
    finally:
        torch.set_num_threads(threads)
        log.handlers[:], log.level = handlers, level
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = switches
