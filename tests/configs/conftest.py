"""Running the bundle as its users do, on small scans and a narrow network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import bundle_runner
from tests.conftest import write_dataset

TRAIN = "configs/train.yaml"

Run = Callable[..., bundle_runner.Done]


@pytest.fixture(scope="session")
def run_bundle() -> Run:
    """Runs a workflow as `monai.bundle run` does, in this process."""
    return bundle_runner.run_bundle


@pytest.fixture(scope="session")
def run_bundle_process() -> Run:
    """Runs `python -m monai.bundle run` in a process of its own."""

    def run(
        run_id: str, config: str, ok: bool = True, cwd: Path = bundle_runner.ROOT, **settings: object
    ) -> bundle_runner.Done:
        return bundle_runner.run_process(bundle_runner.bundle_command(run_id, config, **settings), cwd, ok)

    return run


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set and the run of two short epochs on it."""
    folder = tmp_path_factory.mktemp("trained")
    dataset = write_dataset(folder / "dataset")
    bundle_runner.run_bundle("training", TRAIN, dataset_dir=dataset, output_dir=folder / "run", **bundle_runner.NARROW)
    return folder


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """A checkpoint of two short epochs; its data set lies beside it."""
    shutil.copytree(trained_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run" / "model.pt"


@pytest.fixture(scope="session")
def bundle_tools() -> type[BundleTools]:
    """Command line, environment and settings of a small run."""
    return BundleTools


class BundleTools:
    """What tests need that start the bundle's processes themselves."""

    narrow = bundle_runner.NARROW
    command = staticmethod(bundle_runner.bundle_command)
    environment = staticmethod(bundle_runner.environment)
