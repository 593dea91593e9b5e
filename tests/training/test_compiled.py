from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from scripts.research.workflows import run_workflow
from tests.bundle_runner import NARROW


def test_a_compiled_training_writes_the_same_keys(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    """The backend is one that needs no compiler."""
    settings = {**NARROW, "dataset_dir": str(make_dataset()), "max_epochs": 1, "fold": None}
    compiled = {"train#trainer#compile": True, "train#trainer#compile_kwargs": {"backend": "eager"}}
    for name, more in (("eager", {}), ("compiled", compiled)):
        run_workflow(["configs/train.yaml"], output_dir=str(tmp_path / name), **settings, **more)
    eager, other = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("eager", "compiled"))
    assert eager.keys() == other.keys()
    assert all(torch.allclose(value, other[key], atol=1e-3) for key, value in eager.items())
