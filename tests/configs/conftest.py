"""Running the bundle as its users do, on small scans and a narrow network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TRAIN = "configs/train.yaml"
NARROW = {
    "network_def#base_width": 4,
    "spatial_size": 32,
    "batch_size": 4,
    "max_epochs": 2,
    "device": "cpu",
    "learning_rate": 0.01,
}

Run = Callable[..., subprocess.CompletedProcess[str]]


def bundle_command(run_id: str, config: str, **settings: object) -> list[str]:
    options = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    return [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", config, *options]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def run_bundle(bundle_root: Path) -> Run:
    """Runs `python -m monai.bundle run` from the bundle root; fails the test unless told that it may fail."""

    def run(run_id: str, config: str, ok: bool = True, cwd: Path | None = None, **settings: object):
        done = subprocess.run(
            bundle_command(run_id, config, **settings),
            cwd=cwd or bundle_root,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        if ok:
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return run


@pytest.fixture
def trained(run_bundle: Run, make_dataset: Callable[..., Path], tmp_path: Path) -> Path:
    """A checkpoint of two short epochs; its data set lies beside it."""
    run_bundle("training", TRAIN, dataset_dir=make_dataset(), output_dir=tmp_path / "run", **NARROW)
    return tmp_path / "run" / "model.pt"


class BundleTools:
    """What tests need that start the bundle's processes themselves."""

    narrow = NARROW
    command = staticmethod(bundle_command)
    environment = staticmethod(environment)


@pytest.fixture(scope="session")
def bundle_tools() -> type[BundleTools]:
    """Command line, environment and settings of a small run."""
    return BundleTools
