"""Which of the shipped weights a run takes, and what it says of them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from scripts.errors import UserError
from scripts.inference import shipped as module
from scripts.inference.metadata import read_metadata
from scripts.inference.shipped import choose_model
from scripts.pipeline.case import Settings
from scripts.pipeline.job import Job
from tests.bundle_runner import Done, run_command

MakeScan = Callable[..., tuple[Path, Path]]
FLOAT32 = ("--device", "cpu", "--backend", "torch", "--precision", "fp32")


def test_cuda_takes_the_full_model_where_it_is_there(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = choose_model(device="cuda:1")
    assert (full.name, full.path, full.reason) == ("full", shipped / "full.pt", "chosen because a CUDA device is there")
    for device in ("cpu", "mps", torch.device("cpu")):
        compact = choose_model(device=device)
        assert (compact.name, compact.path) == ("compact", shipped / "model.pt")
        assert f"because the device is {device}" in compact.reason
    monkeypatch.setattr(module, "default_device", lambda: torch.device("cuda:0"))
    assert choose_model().name == "full"
    assert choose_model("compact").name == "compact"
    (shipped / "full.pt").unlink()
    assert choose_model().name == "compact"
    assert "there is no full.pt" in choose_model().reason


@pytest.mark.parametrize(
    ("compact", "full", "chosen"),
    [(0.744, 0.694, "compact"), (0.744, 0.744, "full"), (0.7, 0.8, "full"), (None, 0.1, "full"), (0.9, None, "full")],
)
def test_cuda_takes_the_full_model_unless_its_cross_validation_was_worse(
    make_checkpoint: Callable[..., Path], tmp_path: Path, compact: float | None, full: float | None, chosen: str
) -> None:
    for name, dice in (("model", compact), ("full", full)):
        measured = {"pictures": {"at_threshold": 0.5}} if dice is None else {"volumes": {"at_threshold": dice}}
        make_checkpoint(tmp_path / f"{name}.pt", calibration={"dice": measured})
    found = choose_model(device="cuda:0", folder=tmp_path)
    assert found.name == chosen
    assert chosen == "full" or "is 0.744, that of full 0.694" in found.reason
    assert choose_model("full", device="cuda:0", folder=tmp_path).name == "full"


def test_the_shipped_model_on_cuda_is_the_one_of_higher_dice(bundle_root: Path) -> None:
    """By the table of every case in docs/results, made apart from the metadata."""
    rows = pd.read_csv(bundle_root / "docs" / "results" / "weights" / "rows.csv")
    of_volumes = rows[rows["group"].isin(["coronacases", "radiopaedia"])].groupby("weights")["dice"].mean()
    assert choose_model(device="cuda").name == of_volumes[["compact", "full"]].idxmax()


def test_mistakes_are_one_line_each(shipped: Path) -> None:
    (shipped / "full.pt").unlink()
    with pytest.raises(UserError, match=r"full\.pt: not there; expected: the full weights.*--model compact"):
        choose_model("full")
    for model in ("compact", "full"):
        with pytest.raises(UserError, match="expected: one of them"):
            choose_model(model, shipped / "model.pt")
    with pytest.raises(UserError, match="model is 'wide'; expected: auto, compact, full"):
        choose_model("wide")
    assert choose_model("auto", "mine.pt").path == Path("mine.pt")


def test_the_report_says_which_model_and_why(shipped: Path, make_scan: MakeScan, tmp_path: Path) -> None:
    scan, out = make_scan()[0], tmp_path / "out"

    def segment(*words: object, ok: bool = True) -> Done:
        return run_command("segment", scan, out, "--intensity", "hu", *FLOAT32, *words, ok=ok)

    segment()
    report = json.loads((out / "scan" / "report.json").read_text())
    reason = "chosen because the device is cpu, not CUDA"
    assert report["settings"]["model"] == {"name": "compact", "reason": reason}
    assert f"compact: {reason}" in (out / "scan" / "report.html").read_text()
    assert json.loads((out / "manifest.json").read_text())["settings"]["model"]["name"] == "compact"

    assert "found done" in segment("--model", "compact").stdout  # the reason is another, the result is not
    assert "found done" in segment("--weights", shipped / "model.pt").stdout
    refused = segment("--model", "full", ok=False)
    assert refused.returncode == 2
    assert "holds results of another input, other weights or settings" in refused.stderr
    segment("--model", "full", "--overwrite")
    report = json.loads((out / "scan" / "report.json").read_text())
    assert report["model"]["weights_sha256"] == read_metadata(shipped / "full.pt")["sha256"]
    assert "full: as the setting model says" in (out / "scan" / "report.html").read_text()


def test_a_wrong_call_ends_before_any_work(shipped: Path, make_scan: MakeScan, tmp_path: Path) -> None:
    words = ("segment", make_scan()[0], tmp_path / "out", "--model", "full", *FLOAT32)
    both = run_command(*words, "--weights", shipped / "full.pt", ok=False)
    (shipped / "full.pt").unlink()
    absent = run_command(*words, ok=False)
    for done, text in ((both, "expected: one of them"), (absent, "full.pt: not there")):
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert text in line
    assert not (tmp_path / "out").exists()


def test_a_job_takes_the_weights_of_the_installation_where_it_runs(
    shipped: Path, make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker on a CPU takes the model that a command on a GPU chose, out of its own folder."""
    sent = pickle.dumps(Job(choose_model(device="cuda"), (("device", "cpu"),), Settings(), tmp_path))
    (tmp_path / "worker").mkdir()
    there = make_checkpoint(tmp_path / "worker" / "full.pt", seed=2)
    monkeypatch.setattr(module, "MODELS", there.parent)
    model = pickle.loads(sent).load()
    assert model.model["weights_sha256"] == read_metadata(there)["sha256"]
    assert model.choice.reason == "chosen because a CUDA device is there"
