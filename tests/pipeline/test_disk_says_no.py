"""A disk that cannot be written ends a command in one line;
jobs that share an output folder keep all entries."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import sys
from pathlib import Path

import pytest

from scripts import __main__ as entry
from scripts.errors import UserError, find_user_error
from scripts.files import locked, write_json
from scripts.io.output_names import KEY, MANIFEST
from scripts.pipeline.batch import _save


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_what_the_disk_says_is_one_line(number, monkeypatch, capsys, tmp_path):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "out"))

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(sys, "argv", ["scripts", "phantom", str(tmp_path / "out"), "--cases", "1"])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 2
    printed = capsys.readouterr().err.strip()
    assert printed.splitlines()[-1] == (
        f"error: {tmp_path / 'out'}: {os.strerror(number)}; expected: a folder that can be written, on a disk with "
        "space left"
    )
    assert "Traceback" not in printed


def test_a_folder_below_a_file_is_one_line(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(sys, "argv", ["scripts", "phantom", str(tmp_path / "file" / "out"), "--cases", "1"])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_other_errors_are_no_mistakes_of_the_user():
    assert find_user_error(FileNotFoundError(errno.ENOENT, "no such file", "x")) is None
    assert find_user_error(RuntimeError("bug")) is None


@pytest.mark.parametrize(
    "content",
    [
        {"cases": 5, "earlier": None},
        {"cases": [5, None, "x", [], {}, {"folder": "a"}, {"folder": 3, "name": "a", "status": "done"}]},
        {"cases": [{"folder": "../a", "name": "a", "status": "refused"}], "earlier": {"folder": "a"}},
        {"cases": [], "finished": 7},
    ],
)
def test_a_manifest_of_any_shape_is_survived(content, tmp_path):
    write_json(tmp_path / MANIFEST, {"format": 1, "packages": {}} | content)
    kept = {"name": "b", "folder": "b", "status": "refused", "message": "b: no scan"}
    earlier = json.loads((tmp_path / MANIFEST).read_text())
    if isinstance(earlier["cases"], list):
        earlier["cases"].append(kept)
        write_json(tmp_path / MANIFEST, earlier)
    manifest = {"created": "2026-01-01T00:00:00+00:00", "cases": [{"name": "c", "folder": "c", "status": "done"}]}
    _save(tmp_path, manifest)
    saved = json.loads((tmp_path / MANIFEST).read_text())
    assert [entry["folder"] for entry in saved["cases"]] == ["c"]
    assert saved["earlier"] == ([kept] if isinstance(earlier["cases"], list) else [])


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, "\udcff", '{"format": 1}'])
def test_a_file_that_is_no_manifest_is_kept(text, tmp_path):
    (tmp_path / MANIFEST).write_bytes(text.encode(errors="surrogateescape"))
    before = (tmp_path / MANIFEST).read_bytes()
    with pytest.raises(UserError, match=r"manifest\.json: not a manifest of this command; expected: another OUTPUT"):
        _save(tmp_path, {"created": "2026", "cases": []})
    assert (tmp_path / MANIFEST).read_bytes() == before


def _job(output: Path, name: str, together: object) -> None:
    """Ends ten cases one after another, each with a report, as `record` does."""
    entries = [{"name": f"{name}{k}", "folder": f"{name}{k}", "status": "waiting"} for k in range(10)]
    manifest = {"format": 1, "created": "2026-01-01T00:00:00+00:00", "finished": None, "packages": {}, "cases": entries}
    together.wait()  # type: ignore[attr-defined]
    for case in entries:
        _save(output, manifest)
        write_json(output / case["folder"] / "report.json", {KEY: name})
        case["status"] = "done" if case["name"] != f"{name}3" else "refused"
        if case["status"] == "refused":
            (output / case["folder"] / "report.json").unlink()
    manifest["finished"] = "2026-01-01T00:01:00+00:00"
    _save(output, manifest)


def test_two_jobs_on_one_output_lose_no_case(tmp_path):
    context = multiprocessing.get_context("fork")
    together = context.Barrier(2)
    jobs = [context.Process(target=_job, args=(tmp_path, name, together)) for name in "ab"]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
        assert job.exitcode == 0
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    found = {one["name"]: one["status"] for one in (*manifest["cases"], *manifest["earlier"])}
    expected = {f"{name}{k}": "refused" if k == 3 else "done" for name in "ab" for k in range(10)}
    assert found == expected
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [MANIFEST]


def test_a_lock_keeps_the_others_out(tmp_path):
    context = multiprocessing.get_context("fork")
    started, inside = context.Event(), context.Event()

    def enter() -> None:
        started.wait(20)
        with locked(tmp_path):
            inside.set()

    other = context.Process(target=enter)
    other.start()
    with locked(tmp_path):
        started.set()
        assert not inside.wait(0.3)
    assert inside.wait(20)
    other.join(20)
