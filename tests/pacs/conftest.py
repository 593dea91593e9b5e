"""A node and an archive in this process, both on loopback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from scripts.__main__ import main
from scripts.inference.segmenter import Segmenter
from scripts.pipeline.case import CaseSegmenter, Settings


@pytest.fixture
def archive() -> Iterator[Any]:
    """An archive that keeps what it is sent."""
    from tests.pacs.peers import Archive

    archive = Archive()
    yield archive
    archive.server.shutdown()


@pytest.fixture
def start_node(tmp_path: Path, weights: Path, archive: Any) -> Iterator[Callable[..., Any]]:
    """Starts a node; another call starts the next one over the same folder."""
    from tests.pacs.peers import QUICK, RunningNode

    segmenter = Segmenter(weights, "cpu")
    with ExitStack() as stack:

        def start(patience: Any = QUICK, tls: Any = None, settings: Settings | None = None) -> Any:
            model = CaseSegmenter(segmenter, settings)
            node = RunningNode(tmp_path / "node", model, archive, patience, tls)
            stack.callback(node.stop)
            return node

        yield start


@pytest.fixture
def segment(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command line in this process; returns its exit code."""

    def run(*words: object) -> int:
        named = ["segment", "--weights", weights, "--device", "cpu", "--backend", "torch", *words]
        monkeypatch.setattr(sys, "argv", ["scripts", *map(str, named)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run
