"""Peers that stop in the middle of a message, as one does that loses the network."""

from __future__ import annotations

import socket
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from scripts.pacs.peers import Peer
from scripts.pacs.queue import StudyQueue
from scripts.pacs.receiving import ASSOCIATIONS, receiving
from scripts.pacs.sending import NotSentError, send
from tests.pacs.peers import Archive, pynetdicom, store, wait_for, write_study
from tests.scan_fixtures import make_slice, save, uid


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a second is silence."""
    monkeypatch.setattr("scripts.pacs.peers.SILENCE_S", 0.1)


def test_callers_that_stop_give_their_places_to_others(tmp_path: Path) -> None:
    queue = StudyQueue(tmp_path / "node")
    with receiving(queue, "LUNG_AI", "127.0.0.1", 0, ["PACS"]) as port:
        caller = pynetdicom.AE("PACS")
        caller.add_requested_context(pynetdicom.sop_class.Verification)
        calls = [caller.associate("127.0.0.1", port, ae_title="LUNG_AI") for _ in range(ASSOCIATIONS)]
        assert all(call.is_established for call in calls)
        for call in calls:
            call.dul.socket.socket.sendall(b"\x04\x00\x00\x00\x10\x00half of a message")
        wait_for(lambda: not any(call.is_established for call in calls))
        store(Peer("LUNG_AI", "127.0.0.1", port), write_study(tmp_path, slices=1))
    assert queue.waiting() == [uid("study")]


def test_an_archive_that_stops_reading_gave_no_answer(archive: Archive, tmp_path: Path) -> None:
    go_on = Event()

    def stop(event: Any) -> None:
        if event.data[0] == 4:  # P-DATA-TF
            go_on.wait()

    archive.server.bind(pynetdicom.evt.EVT_DATA_RECV, stop)
    archive.server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    large = save(make_slice(np.zeros((2500, 2500), np.int16), (0, 0, 0), 0, "series"), tmp_path / "large.dcm")
    try:
        with pytest.raises(NotSentError, match=r"gave no answer to large\.dcm"):
            send([large], archive.peer, "LUNG_AI")
    finally:
        go_on.set()
