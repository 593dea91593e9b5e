"""The setting `model` of `run inference`: which of the shipped weights it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundle_runner import Done, run_bundle, run_inference

MakeScan = Callable[..., tuple[Path, Path]]


@pytest.fixture
def infer(shipped: Path, make_scan: MakeScan, tmp_path: Path) -> Callable[..., Done]:
    """Runs inference in a bundle whose folder `models` is `shipped`; one argument is the output."""
    scan, _ = make_scan()

    def infer(out: str, **settings: object) -> Done:
        given = {"dataset_dir": scan, "output_dir": tmp_path / out, "bundle_root": shipped.parent, "device": "cpu"}
        return run_bundle("inference", "configs/inference.yaml", **{**given, **settings})

    return infer


def test_inference_takes_either_model(
    infer: Callable[..., Done], shipped: Path, make_scan: MakeScan, tmp_path: Path
) -> None:
    masks = {}
    for name, file in (("compact", "model.pt"), ("full", "full.pt")):
        expected = run_inference(make_scan()[0], shipped / file, tmp_path / f"expected_{name}")
        infer(name, model=name)
        masks[name] = (tmp_path / name / "scan_infection.nii.gz").read_bytes()
        assert masks[name] == expected.read_bytes()
    assert masks["compact"] != masks["full"]
    for name in ("auto", "default"):  # MONAI's exports and MONAI Label's own app need compact by default
        infer(name, **{"model": name} if name == "auto" else {})
        assert (tmp_path / name / "scan_infection.nii.gz").read_bytes() == masks["compact"]


def test_a_model_beside_a_checkpoint_is_refused(infer: Callable[..., Done], weights: Path, tmp_path: Path) -> None:
    done = infer("out", model="full", checkpoint=weights, ok=False)
    assert done.stderr.splitlines()[-1].startswith("error: both a model (full) and weights")
    assert not (tmp_path / "out").exists()
