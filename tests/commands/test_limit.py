"""`--limit` of the commands that read a scan: it holds where the scan is read."""

from __future__ import annotations

import signal
from typing import NoReturn

import pytest

from scripts.errors import UserError
from scripts.io.limits import limits
from tests.bundle_runner import run_command


@pytest.mark.parametrize(
    ("reads", "words"),
    [
        ("report.preview.preview_files", ("preview", "scan.nii", "mask.nii", "out.png")),
        ("research.figures.figure_files", ("figures", "scan.nii", "out", "--weights", "model.pt")),
        ("research.radiograph.radiograph_files", ("radiograph", "scan.nii", "mask.nii", "out")),
        ("research.classify.classify_file", ("classify", "scan.nii", "out", "--mask", "mask.nii")),
        ("viewer.server.serving", ("view", "out", "--no-browser")),
    ],
)
def test_a_limit_holds_where_the_scan_is_read(
    reads: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> NoReturn:
        raise UserError(f"at most {limits().slice_voxels} and {limits().ratio}")

    monkeypatch.setattr(f"scripts.{reads}", read)
    monkeypatch.setattr("scripts.research.classify.Classifier", lambda *_: None)
    monkeypatch.setattr("scripts.viewer.results.find_cases", lambda _: [])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    ended = run_command(*words, "--limit", "slice_voxels=2e7", "--limit=ratio=9", ok=False)
    assert (ended.returncode, ended.stderr) == (2, "error: at most 20000000 and 9\n")
    ended = run_command(*words, "--limit", "slices=1", ok=False)
    assert ended.stderr.startswith("error: --limit slices=1: expected: NAME=NUMBER")
