"""MONAI Label's own `monaibundle` app, unmodified, with this bundle's folder under `model/`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests

from scripts.data.phantom.dataset import write_phantom_dataset
from scripts.monai_label.deployment import NAME
from tests.bundle_runner import run_inference

Server = Any  # tests/monai_label/conftest.py

pytestmark = [pytest.mark.monailabel, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-monailabel/bin/python"


@pytest.fixture(scope="module")
def stock(
    tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path], monai_label_tools: Any
) -> Iterator[Server]:
    """Starts the app as its documents say, without reaching the net."""
    if not (PYTHON.parents[1] / "ready").exists():
        pytest.skip("MONAI Label's environment is absent; `make .venv-monailabel/ready` builds it in a few minutes")
    folder = tmp_path_factory.mktemp("stock")
    app = folder / "app"
    shutil.copytree(PYTHON.parents[1] / "monailabel/sample-apps/monaibundle", app)
    bundle = app / "model" / NAME
    for name in ("configs", "scripts", "docs"):
        shutil.copytree(ROOT / name, bundle / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    make_checkpoint(bundle / "models" / "model.pt")
    write_phantom_dataset(str(folder / "all"), 2, seed=7, size=128, slices=24)
    studies = folder / "studies"
    studies.mkdir()
    for scan in folder.glob("all/COVID-19-CT-Seg_20cases/*.nii.gz"):
        scan.rename(studies / scan.name)
    port = monai_label_tools.free_port()
    words = [PYTHON, "-m", "monailabel.main", "start_server", "--app", app, "--studies", studies]
    words += ["--conf", "models", NAME, "--conf", "zoo_source", "local", "--conf", "sam2", "false"]
    words += ["--host", "127.0.0.1", "--port", port]
    with monai_label_tools.launched(words, folder, app, f"http://127.0.0.1:{port}", NAME) as running:
        yield running


def test_info_says_what_the_model_segments(stock: Server) -> None:
    model = requests.get(f"{stock.url}/info/", timeout=60).json()["models"][NAME]
    assert model["labels"] == {"infection": 1}
    assert model["dimension"] == 3
    assert model["type"] == "segmentation"


@pytest.mark.parametrize("upload", [False, True])
def test_the_mask_is_that_of_run_inference(upload: bool, stock: Server, tmp_path: Path) -> None:
    scan = stock.deployment.parent / "studies" / "phantom_001.nii.gz"
    weights = stock.deployment / "model" / NAME / "models" / "model.pt"
    expected = run_inference(scan, weights, tmp_path / "out")
    answer = stock.infer(upload=scan) if upload else stock.infer("phantom_001")
    assert answer.status_code == 200, answer.text
    (tmp_path / "answer.nii.gz").write_bytes(answer.content)
    found, wanted = nib.load(tmp_path / "answer.nii.gz"), nib.load(expected)
    np.testing.assert_array_equal(found.get_fdata(), wanted.get_fdata())
    np.testing.assert_allclose(found.affine, wanted.affine, atol=1e-4)
    assert 0 < wanted.get_fdata().mean() < 1
