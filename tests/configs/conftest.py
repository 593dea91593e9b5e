"""A training of two short epochs, once for all tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.bundle_runner import NARROW, run_bundle
from tests.conftest import write_dataset


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set and the run of two short epochs on it."""
    folder = tmp_path_factory.mktemp("trained")
    dataset = write_dataset(folder / "dataset")
    run_bundle("training", "configs/train.yaml", dataset_dir=dataset, output_dir=folder / "run", **NARROW)
    return folder


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """A checkpoint of two short epochs; its data set lies beside it."""
    shutil.copytree(trained_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run" / "model.pt"
