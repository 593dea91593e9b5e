"""A node and an archive in this process, both on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from scripts.inference.segmenter import Segmenter
from scripts.pipeline.case import CaseSegmenter


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

    model = CaseSegmenter(Segmenter(weights, "cpu"))
    with ExitStack() as stack:

        def start(patience: Any = QUICK, tls: Any = None) -> Any:
            node = RunningNode(tmp_path / "node", model, archive, patience, tls)
            stack.callback(node.stop)
            return node

        yield start
