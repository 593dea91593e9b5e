"""A node and an archive in this process, both on loopback; imports the extra `pacs`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from pydicom import Dataset

from scripts.pacs.node import Node, Patience
from scripts.pacs.peers import Peer, Tls
from scripts.pacs.queue import StudyQueue
from scripts.pacs.receiving import receiving
from scripts.pacs.sending import NotSentError, send
from scripts.pipeline.case import CaseSegmenter
from tests.scan_fixtures import make_slice, make_stored, save, uid

pynetdicom = pytest.importorskip("pynetdicom", reason="the extra `pacs` is not installed")
QUICK = Patience(quiet_s=0.3, pause_s=0.2)
WAIT_S = 300.0


def wait_for(what: Callable[[], Any]) -> Any:
    """Waits until something is true; fails after five minutes."""
    end = time.monotonic() + WAIT_S
    while not (found := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


class Archive:
    """An archive that keeps what it is sent, by SOPInstanceUID.

    Attributes:
        status: what it answers.
        arrivals: the SOPInstanceUIDs in the order of their arrival, also of what it refuses.
    """

    def __init__(self) -> None:
        self.held: dict[str, Dataset] = {}
        self.arrivals: list[str] = []
        self.status = 0x0000
        entity = pynetdicom.AE("PACS")
        entity.supported_contexts = pynetdicom.AllStoragePresentationContexts
        handlers = [(pynetdicom.evt.EVT_C_STORE, self._store)]
        self.server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.peer = Peer("PACS", "127.0.0.1", self.server.server_address[1])

    def _store(self, event: Any) -> int:
        one = event.dataset
        one.file_meta = event.file_meta
        self.arrivals.append(str(one.SOPInstanceUID))
        if self.status == 0:
            self.held[str(one.SOPInstanceUID)] = one
        return self.status

    def of_study(self, study: str) -> list[Dataset]:
        """Returns what it holds of a study."""
        return [one for one in self.held.values() if one.StudyInstanceUID == study]


class RunningNode:
    """A node that works in a thread of this process until it is stopped."""

    def __init__(self, folder: Path, model: CaseSegmenter, archive: Archive, patience: Patience, tls: Tls | None):
        self._stack = ExitStack()
        self.queue = StudyQueue(folder)
        taken = receiving(self.queue, "LUNG_AI", "127.0.0.1", 0, ["PACS"], tls)
        self.peer = Peer("LUNG_AI", "127.0.0.1", self._stack.enter_context(taken))
        self.node = Node(self.queue, model, partial(send, peer=archive.peer, title="LUNG_AI"), patience)
        stop = Event()
        thread = Thread(target=self.node.run, args=(stop,))
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(stop.set)

    def stop(self) -> None:
        """Stops it after the study that it works at."""
        self._stack.close()

    def wait_until_done(self, studies: int = 1) -> None:
        """Waits until so many studies are done."""
        wait_for(lambda: self.node.done >= studies)


def write_study(
    folder: Path, study: str = "study", series: Sequence[str] = ("a",), slices: int = 4, syntax: str | None = None
) -> list[Path]:
    """Writes a CT study; returns its files."""
    files = []
    for number, name in enumerate(series):
        stored = make_stored(slices, seed=number)
        for k in range(slices):
            one = make_slice(stored[k], (-10.0, -20.0, 100 + 2.5 * k), k, study + name)
            one.StudyInstanceUID, one.SeriesNumber = uid(study), number + 1
            files.append(save(one, folder / study / f"{name}{k:03d}.dcm", *([syntax] if syntax else [])))
    return files


def store(peer: Peer, files: Sequence[Path], title: str = "PACS") -> None:
    """Sends files as an archive does, once more where an answer got lost.

    On a busy machine the thread of pynetdicom that listens may take it from the one that waits.
    """
    try:
        send(files, peer, title)
    except NotSentError as error:
        if "no answer" not in str(error):
            raise
        send(files, peer, title)
