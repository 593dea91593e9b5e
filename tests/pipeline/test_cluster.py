"""A Dask cluster writes what one process writes; lost workers and schedulers lose no result."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster, get_worker

from scripts.data.phantom.dataset import write_phantom_dataset
from scripts.errors import UserError
from scripts.inference.metadata import read_metadata
from scripts.inference.shipped import choose_model
from scripts.pipeline import cluster as module
from scripts.pipeline.batch import record
from scripts.pipeline.case import CaseSegmenter, Settings
from scripts.pipeline.cluster import Cluster
from scripts.pipeline.inputs import expand_inputs
from scripts.pipeline.job import Job
from tests.bundle_runner import ROOT, environment, heed_ctrl_c, run_command
from tests.equal_results import written

FLOAT32 = ("--device", "cpu", "--backend", "torch", "--precision", "fp32")
"""By name, because the tests of this process have another default than its subprocesses."""
MakeScan = Callable[..., tuple[Path, Path]]


@pytest.fixture(scope="module")
def local() -> Iterator[LocalCluster]:
    """A scheduler and two workers in this process, which speak TCP."""
    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=":0"
    ) as cluster:
        yield cluster


@pytest.fixture
def scans(make_scan: MakeScan) -> Path:
    """The folder of two scans and of a file that is none."""
    folder = make_scan("a", 1)[0].parent
    make_scan("b", 2)
    (folder / "c.nii.gz").write_bytes(b"no scan")
    return folder


def job_of(weights: Path, output: Path, kind: type[Job] = Job) -> Job:
    return kind(choose_model(weights=weights), (("device", "cpu"),), Settings("hu"), output)


def test_a_cluster_writes_what_one_process_writes(
    local: LocalCluster, scans: Path, weights: Path, tmp_path: Path
) -> None:
    words = ("segment", scans, "--intensity", "hu", "--weights", weights, *FLOAT32)
    one = run_command(*words, tmp_path / "one", ok=False)
    done = run_command(*words, tmp_path / "cluster", "--scheduler", local.scheduler_address, ok=False)
    assert one.returncode == done.returncode == 3, done.stderr
    assert sorted(done.stdout.split()) == sorted(one.stdout.split())
    assert written(tmp_path / "cluster") == written(tmp_path / "one")
    again = run_command(*words, tmp_path / "cluster", "--scheduler", local.scheduler_address, ok=False)
    assert again.stdout.count("found done") == 2


def test_a_cluster_takes_the_model_that_the_command_chose(
    local: LocalCluster, scans: Path, shipped: Path, tmp_path: Path
) -> None:
    words = ("segment", scans / "a.nii.gz", tmp_path / "out", "--intensity", "hu", *FLOAT32)
    run_command(*words, "--model", "full", "--scheduler", local.scheduler_address)
    found = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert found["model"]["weights_sha256"] == read_metadata(shipped / "full.pt")["sha256"]
    assert found["settings"]["model"] == {"name": "full", "reason": "as the setting model says"}


class Picky(Job):
    """Fits all workers but one."""

    def load(self) -> CaseSegmenter:
        if get_worker().name == 0:
            raise UserError("torch is 1.0; expected: 2.13")
        return super().load()


def test_a_worker_that_does_not_fit_is_left_out(
    local: LocalCluster, scans: Path, weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cases = expand_inputs([scans])
    with closing(Cluster(local.scheduler_address)) as cluster:
        entries = cluster.segment(job_of(weights, tmp_path / "out", Picky), cases)
        manifest = record(entries, {"packages": {}}, cases, tmp_path / "out")
        assert [entry["status"] for entry in manifest["cases"]] == ["done", "done", "refused"]
        assert [line for line in caplog.messages if "is left out" in line][1:] == []
        cluster.unfit = dict.fromkeys(cluster._workers(), "")
        assert list(cluster.segment(job_of(weights, tmp_path / "out"), cases)) == []
        assert "no worker can be used any more; what is done is kept" in caplog.text


def test_workers_of_another_version_or_without_the_file_system_are_refused(
    local: LocalCluster,
    scans: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    case = expand_inputs([scans])[0]
    job = job_of(weights, tmp_path / "out")
    with closing(Cluster(local.scheduler_address)) as cluster:
        (scans / "a.nii.gz").rename(tmp_path / "elsewhere")
        with pytest.raises(UserError, match="no worker can be used"):
            cluster.prepare(job, case)
        assert "expected: the file system of the machine" in caplog.text
        (tmp_path / "elsewhere").rename(scans / "a.nii.gz")
        assert cluster.prepare(job, case)[1]["model"]["synthetic"] is True
    monkeypatch.setattr(module, "bundle_version", lambda: "99.0")
    with closing(Cluster(local.scheduler_address)) as cluster, pytest.raises(UserError, match="no worker can be used"):
        cluster.prepare(job, case)
    assert "'version': '99.0'" in caplog.text


def test_without_a_scheduler_or_the_package_there_is_one_line(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECT_S", 0.3)
    words = ("segment", scans, tmp_path / "out", "--scheduler", "tcp://127.0.0.1:9")
    done = run_command(*words, ok=False)
    assert done.returncode == 2
    assert "no Dask scheduler answers" in done.stderr.splitlines()[-1]
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "pip install 'lung-infection-ct[cluster]'" in run_command(*words, ok=False).stderr
    assert not (tmp_path / "out").exists()


@contextmanager
def dask(folder: Path, workers: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Starts a scheduler and workers as their users do; yields their processes, the scheduler's
    first. Its file is FOLDER/scheduler.json."""
    folder.mkdir()
    file = ["--scheduler-file", str(folder / "scheduler.json"), "--no-dashboard"]
    scheduler = ["distributed.cli.dask_scheduler", *file, "--host", "127.0.0.1", "--port", "0"]
    worker = ["distributed.cli.dask_worker", *file, "--nthreads", "1", "--local-directory", str(folder)]
    log = (folder / "log.txt").open("wb")
    environ = {**environment(), "PYTHONPATH": str(ROOT)}
    crew = [
        subprocess.Popen([sys.executable, "-m", *words], env=environ, cwd=folder, stdout=log, stderr=log)
        for words in [scheduler, *[worker] * workers]
    ]
    try:
        deadline = time.monotonic() + 300
        while not (folder / "scheduler.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield crew
    finally:
        for process in crew:
            kill(process)
        log.close()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and those below it, as a machine that fails does."""
    if process.poll() is None:
        for one in [*psutil.Process(process.pid).children(recursive=True), process]:
            one.kill()
    process.wait()


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve synthetic chests."""
    folder = tmp_path_factory.mktemp("phantoms") / "set"
    write_phantom_dataset(folder, cases=12, size=96, slices=20)
    return folder / "COVID-19-CT-Seg_20cases"


@contextmanager
def running(
    phantoms: Path, weights: Path, output: Path, scheduler: Path, least: int
) -> Iterator[subprocess.Popen[str]]:
    """Starts the command on a cluster and waits until some scans are done."""
    words = [phantoms, output, "--weights", weights, *FLOAT32, "--scheduler", scheduler]
    line = [sys.executable, "-m", "scripts", "segment", *map(str, words)]
    process = subprocess.Popen(
        line, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
    )
    deadline = time.monotonic() + 900
    while len(list(output.glob("phantom_*"))) < least:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield process


@pytest.mark.slow
def test_a_killed_worker_costs_its_scan_and_a_killed_scheduler_what_was_not_done(
    phantoms: Path, weights: Path, tmp_path: Path
) -> None:
    alone, out, lost = (tmp_path / name for name in ("alone", "out", "lost"))
    run_command("segment", phantoms, alone, "--weights", weights, *FLOAT32)
    expected = written(alone)

    with dask(tmp_path / "first", 3) as (scheduler, *workers):
        with running(phantoms, weights, out, tmp_path / "first" / "scheduler.json", 3) as process:
            kill(workers[0])
            errors = process.communicate(timeout=900)[1]
            assert process.returncode == 0, errors
        found = written(out)
        for entry in found["manifest.json"]["cases"]:  # the worker may have died between writing and telling
            entry["status"] = {"found done": "done"}.get(entry["status"], entry["status"])
        assert found == expected

        with running(phantoms, weights, lost, tmp_path / "first" / "scheduler.json", 3) as process:
            kill(scheduler)
            errors = process.communicate(timeout=300)[1]
        assert process.returncode == 3
        assert "the scheduler is gone" in errors
        assert "Traceback" not in errors
        manifest = json.loads((lost / "manifest.json").read_text())
        assert manifest["finished"] is None
        assert {entry["status"] for entry in manifest["cases"]} == {"done", "waiting"}

    for folder in lost.glob(".unfinished-*"):  # of the workers that were killed
        shutil.rmtree(folder)
    before = len(list(lost.glob("phantom_*")))
    with (
        dask(tmp_path / "second", 1),
        running(phantoms, weights, lost, tmp_path / "second" / "scheduler.json", before + 1) as process,
    ):
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(300) == 130
        manifest = json.loads((lost / "manifest.json").read_text())
        assert "waiting" in {entry["status"] for entry in manifest["cases"]}
    resumed = run_command("segment", phantoms, lost, "--weights", weights, *FLOAT32)
    assert resumed.stdout.count("found done") >= before + 1
    assert {**written(lost), "manifest.json": 0} == {**expected, "manifest.json": 0}
