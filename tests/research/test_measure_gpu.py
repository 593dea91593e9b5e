"""What docs/measure_gpu.py runs, and how it stops and resumes."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from monai.bundle import ConfigParser
from typer.main import get_command

from scripts import __main__
from scripts.training.runner import unknown_ids
from scripts.version import BUNDLE
from tests.conftest import write_dataset
from tests.doc_scripts import load_script


@pytest.fixture
def script() -> ModuleType:
    return load_script("measure_gpu")


def check_workflow(words: list[str]) -> None:
    """Reads what a run of the bundle would read, and refuses ids that its files do not have."""
    run, option, listed, *settings = words
    assert option == "--config_file"
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / file) for file in ast.literal_eval(listed)])
    for name, value in zip(settings[::2], settings[1::2], strict=True):
        parser[name.removeprefix("--")] = value
    assert unknown_ids(parser.config, ["initialize", "run", run]) == []


@pytest.mark.parametrize("quick", [False, True])
def test_every_command_is_one_of_the_bundle(script: ModuleType, quick: bool, tmp_path: Path, monkeypatch) -> None:
    data = write_dataset(tmp_path / "data")
    monkeypatch.setattr(script, "phantoms", lambda folder: data)
    plan = script.Plan(data, tmp_path, data, "cuda", BUNDLE / script.BUDGET, 9, 3, "coronacases_007", quick)
    jobs = [job for stage in script.STAGES.values() for job in stage(plan)]
    assert len({job.name for job in jobs}) == len(jobs) > 20
    for words in (words for job in jobs for words in job.commands):
        assert words[0] == sys.executable
        if words[1:3] == ["-m", "monai.bundle"]:
            check_workflow(words[4:])
        elif words[1:3] == ["-m", "scripts"]:
            command = get_command(__main__.build()).commands[words[3]]  # type: ignore[attr-defined]
            command.make_context(words[3], words[4:])
        else:
            assert all((BUNDLE / word).exists() for word in words if word.startswith(("docs/", "tests/")))


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def piece(script: ModuleType, out: Path, jobs: list[Any], minutes: float = 0.0) -> dict[str, Any]:
    """Runs jobs as one call does; returns the state that it left."""
    one = script.Piece(out, "cpu", 2, minutes)
    one.run(jobs)
    one.report(jobs)
    return json.loads((out / "state.json").read_text())  # type: ignore[no-any-return]


def test_a_job_stops_before_the_time_is_over_and_goes_on_where_it_was(script: ModuleType, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(script, "GRACE", 10)
    log = tmp_path / "log"
    wait = f"import sys, time\ntry: time.sleep(600 if not open({str(log)!r}).read().count('saved') else 0)\n"
    wait += f"except KeyboardInterrupt: open({str(log)!r}, 'a').write('saved '); sys.exit(1)"
    first = python(f"open({str(log)!r}, 'a').write('first ')")
    jobs = [script.Job("slow", [first, python(wait), python(f"open({str(log)!r}, 'a').write('last')")])]
    state = piece(script, tmp_path / "out", jobs, minutes=0.25)
    assert (state["slow"]["status"], state["slow"]["done"]) == ("left", 1)
    state = piece(script, tmp_path / "out", jobs)
    assert log.read_text() == "first saved last"
    assert (state["slow"]["status"], state["slow"]["pieces"]) == ("finished", 2)
    state = piece(script, tmp_path / "out", jobs)
    assert log.read_text() == "first saved last"
    assert "| slow | finished |" in (tmp_path / "out/table.md").read_text()


def test_a_job_that_fails_stops_no_other_and_is_tried_again(script: ModuleType, tmp_path: Path) -> None:
    flag = tmp_path / "there"
    jobs = [script.Job("broken", [python(f"open({str(flag)!r})"), python("")]), script.Job("sound", [python("")])]
    state = piece(script, tmp_path / "out", jobs)
    assert [state[name]["status"] for name in ("broken", "sound")] == ["failed", "finished"]
    assert "FileNotFoundError" in (tmp_path / "out/logs/broken.txt").read_text()
    flag.touch()
    assert piece(script, tmp_path / "out", jobs)["broken"]["status"] == "finished"
    changed = [script.Job("sound", [python("raise SystemExit(1)")])]
    assert piece(script, tmp_path / "out", changed)["sound"]["status"] == "failed"
