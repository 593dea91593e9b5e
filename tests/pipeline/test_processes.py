"""Several processes write what one writes; a scan that kills its process costs no other."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from scripts.inference.shipped import choose_model
from scripts.pipeline import processes
from scripts.pipeline.batch import record
from scripts.pipeline.case import Settings
from scripts.pipeline.inputs import ScanInput
from scripts.pipeline.job import Entry, Job
from scripts.pipeline.processes import segment_in_processes
from tests.bundle_runner import ROOT, environment, heed_ctrl_c, run_command
from tests.equal_results import written

FLOAT32 = ("--device", "cpu", "--backend", "torch", "--precision", "fp32")
"""By name, because the tests of this process have another default than its subprocesses."""
MakeScan = Callable[..., tuple[Path, Path]]


def command_line(*words: object) -> list[str]:
    return [sys.executable, "-m", "scripts", "segment", *FLOAT32, "--quiet", *map(str, words)]


def start(*words: object) -> subprocess.Popen[str]:
    """Starts the command in a process group of its own, as a terminal does."""
    return subprocess.Popen(
        command_line(*words),
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )


def wait_for(condition: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def hears_no_ctrl_c(pid: int) -> bool:
    """Whether a process blocks or ignores SIGINT, as Linux tells."""
    file = Path(f"/proc/{pid}/status")
    masks = re.findall(r"^Sig(?:Blk|Ign):\s*(\w+)", file.read_text(), re.MULTILINE) if file.exists() else ["2"]
    return any(int(mask, 16) & 1 << signal.SIGINT - 1 for mask in masks)


def statuses(output: Path) -> dict[str, str]:
    return {entry["name"]: entry["status"] for entry in json.loads((output / "manifest.json").read_text())["cases"]}


def test_several_processes_write_what_one_writes(
    make_scan: MakeScan, write_series: Callable[..., np.ndarray], weights: Path, tmp_path: Path
) -> None:
    scans = make_scan("a", 1)[0].parent
    make_scan("b", 2)
    (scans / "c.nii.gz").write_bytes(b"no scan")
    write_series(scans / "d")
    words = ("segment", scans, "--intensity", "hu", "--weights", weights, *FLOAT32)
    one = run_command(*words, tmp_path / "one", ok=False)
    several = run_command(*words, tmp_path / "several", "--workers", 2, ok=False)
    assert one.returncode == several.returncode == 3
    assert "4/4" in several.stderr  # one bar over all
    assert sorted(several.stdout.split()) == sorted(one.stdout.split())
    expected = written(tmp_path / "one")
    assert {"a/infection.nii.gz", "a/report.html", "d/infection_seg.dcm", "d/preview.png"} <= expected.keys()
    assert written(tmp_path / "several") == expected
    assert statuses(tmp_path / "several")["c"] == "refused"
    again = run_command(*words, tmp_path / "several", "--workers", 2, ok=False)
    assert again.stdout.count("found done") == 3


class Deadly(Job):
    """Ends its process at some scans: always, or the first time."""

    def __call__(self, case: ScanInput) -> Entry:
        met = self.output / f"met_{case.name}"
        if case.name == "deadly" or (case.name == "once" and not met.exists()):
            met.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"status": "done", "by": os.getpid()}


@pytest.mark.parametrize(
    ("visible", "device", "expected"),
    [
        ("", None, ["0", "1", "0"]),
        ("5,GPU-1a", "cuda", ["5", "GPU-1a", "5"]),
        ("3,4,99", None, ["3", "4", "3"]),  # CUDA sees two
        ("", "cuda:1", [None, None, None]),
    ],
)
def test_each_process_sees_a_gpu_of_its_own(
    visible: str, device: str | None, expected: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    job = Job(choose_model(device="cpu"), (("device", device),), Settings(), Path())
    assert [processes._gpu(job, number) for number in range(3)] == expected
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert processes._gpu(job, 0) is None


def cases_of(names: Sequence[str]) -> list[ScanInput]:
    return [ScanInput(Path(f"/scans/{name}.nii"), "file", name, name) for name in names]


@pytest.mark.slow
def test_a_scan_that_kills_its_process_is_tried_twice_and_the_others_go_on(tmp_path: Path) -> None:
    cases, before = cases_of(["deadly", "once", "x", "y", "z"]), psutil.Process().children()
    entries = segment_in_processes(Deadly(choose_model(device="cpu"), (), Settings(), tmp_path), cases, 2)
    manifest = record(entries, {"packages": {}}, cases, tmp_path / "out")
    found = {entry["name"]: entry for entry in manifest["cases"]}
    assert {name: entry["status"] for name, entry in found.items()} == {
        **dict.fromkeys(["once", "x", "y", "z"], "done"),
        "deadly": "failed",
    }
    assert "ended twice (SIGKILL)" in found["deadly"]["message"]
    assert manifest["finished"]
    left = [" ".join(child.cmdline()) for child in psutil.Process().children() if child not in before]
    assert not [words for words in left if "resource_tracker" not in words]  # multiprocessing's own stays


def test_ctrl_c_ends_all_processes_and_keeps_what_is_done(make_scan: MakeScan, weights: Path, tmp_path: Path) -> None:
    scans = [make_scan(f"scan_{index}", index, shape=(96, 96, 40))[0] for index in range(6)]
    out = tmp_path / "out"
    words = (scans[0].parent, out, "--weights", weights, "--intensity", "hu", "--workers", 2)
    process = start(*words)
    wait_for(lambda: list(out.glob("scan_*")))
    crew = psutil.Process(process.pid).children(recursive=True)
    assert len(crew) == 3  # two that segment, and the tracker of multiprocessing
    assert all(hears_no_ctrl_c(one.pid) for one in crew)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not [one for one in psutil.wait_procs(crew, timeout=30)[1] if one.is_running()]
    done = {path.name for path in out.iterdir() if path.is_dir()}
    assert 1 <= len(done) < 6
    assert all(name.startswith("scan_") for name in done)  # nothing half written
    found = statuses(out)
    assert "waiting" in found.values()  # a scan may be done and not yet told
    assert {name for name, status in found.items() if status == "done"} <= done
    assert run_command("segment", *words[:-1], 1, *FLOAT32).stdout.count("found done") == len(done)


@pytest.mark.slow
def test_two_runs_into_one_folder_lose_and_refuse_nothing(make_scan: MakeScan, weights: Path, tmp_path: Path) -> None:
    """They do the same scans at the same time."""
    for index in range(4):
        scans = make_scan(f"scan_{index}", index)[0].parent
    out = tmp_path / "out"
    words = (scans, out, "--weights", weights, "--intensity", "hu", "--workers", 1)
    runs = [start(*words), start(*words)]
    for run in runs:
        errors = run.communicate(timeout=240)[1]
        assert run.returncode == 0, errors
    assert set(statuses(out).values()) <= {"done", "found done"}
    assert run_command("segment", *words, *FLOAT32).stdout.count("found done") == 4
    run_command("segment", scans, tmp_path / "alone", *words[2:], *FLOAT32)
    alone, both = written(tmp_path / "alone"), written(out)
    assert both.pop("manifest.json") is not None
    assert both == {name: content for name, content in alone.items() if name != "manifest.json"}


def test_a_result_that_another_run_has_written_meanwhile_is_found(
    make_scan: MakeScan, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scripts.inference.segmenter import Segmenter
    from scripts.pipeline.case import CaseSegmenter
    from scripts.pipeline.inputs import expand_inputs
    from scripts.pipeline.job import segment_case

    model = CaseSegmenter(Segmenter(weights, "cpu"), Settings(intensity="hu"))
    (case,) = expand_inputs([make_scan()[0]])
    predict = model.predict

    def slower(*arguments: object) -> object:
        result = predict(*arguments)  # type: ignore[arg-type]
        monkeypatch.setattr(model, "predict", predict)
        assert segment_case(model, case, tmp_path / "out")["status"] == "done"
        return result

    monkeypatch.setattr(model, "predict", slower)
    assert segment_case(model, case, tmp_path / "out")["status"] == "found done"


def test_workers_and_scheduler_exclude_each_other(make_scan: MakeScan, tmp_path: Path) -> None:
    words = ("segment", make_scan()[0], tmp_path / "out", "--workers", 2, "--scheduler", "tcp://nobody:8786")
    assert "expected: one of them" in run_command(*words, ok=False).stderr
