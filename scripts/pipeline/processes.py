"""Segment cases in several processes of this machine: a scan that kills one stops no other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait

import torch

from .batch import Entries
from .inputs import ScanInput
from .job import Entry, Job

SPAWN = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
PATIENCE_S = 10
"""How long a process has to remove what it has half written."""


def segment_in_processes(job: Job, cases: Sequence[ScanInput], workers: int) -> Entries:
    """Segment cases in new processes, which divide the threads and the GPUs.

    A case whose process dies is tried once more, after the others. All processes end with the
    generator. If this process is killed, they end when their present cases are done.

    Args:
        job: model, settings and output folder.
        cases: the cases.
        workers: how many processes.

    Yields:
        Each case when it has ended, with its manifest entry.
    """
    waiting, lost = deque(cases), set[ScanInput]()
    crew = list[_Worker]()
    try:
        for number in range(workers):  # one by one, so that an interrupt ends those that have begun
            crew.append(_Worker(job, number, workers))
        while True:
            for worker in crew:
                if worker.case is None and waiting:
                    worker.begin(waiting.popleft())
            busy = {worker.connection: number for number, worker in enumerate(crew) if worker.case}
            if not busy:
                return
            for connection in wait(list(busy)):
                number = busy[connection]  # type: ignore[index]  # only what was given comes back
                case, entry = crew[number].take()
                if entry is not None:
                    yield case, entry
                    continue
                code = crew[number].end()
                crew[number] = _Worker(job, number, workers)
                if case not in lost:
                    lost.add(case)
                    waiting.append(case)
                else:
                    yield case, {"status": "failed", "message": _describe_end(case, code)}
    finally:
        for worker in crew:
            worker.stop()
        for worker in crew:
            worker.end()


class _Worker:
    """A process with a model, and the case at which it works."""

    def __init__(self, job: Job, number: int, workers: int) -> None:
        self.connection, theirs = SPAWN.Pipe()
        threads = max(1, torch.get_num_threads() // workers)
        self.process = SPAWN.Process(target=_serve, args=(theirs, job, threads, _gpu(job, number)))
        with _interrupts_blocked():  # Ctrl-C reaches the whole group; this process alone decides
            self.process.start()
        theirs.close()  # so that reading ends when the process does
        self.case: ScanInput | None = None

    def begin(self, case: ScanInput) -> None:
        self.case = case
        with suppress(OSError):  # `take` finds out that the process has ended
            self.connection.send(case)

    def take(self) -> tuple[ScanInput, Entry | None]:
        """Return the case and its entry, None if the process has ended."""
        case, self.case = self.case, None
        assert case is not None
        try:
            return case, self.connection.recv()
        except (EOFError, OSError):
            return case, None

    def stop(self) -> None:
        """Tell the process to end; where it works at a case it removes what is half written."""
        if self.case is None:
            self.process.kill()
        else:
            self.process.terminate()

    def end(self) -> int | None:
        """Wait for the end of the process, force it if need be; return its exit code."""
        self.connection.close()
        self.process.join(PATIENCE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        return self.process.exitcode


def _serve(connection: Connection, job: Job, threads: int, gpu: str | None) -> None:
    """Segment what arrives until the other process closes the connection or ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception removes what is half written
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    torch.set_num_threads(threads)
    with suppress(EOFError, OSError):
        while True:
            connection.send(job(connection.recv()))


def _gpu(job: Job, number: int) -> str | None:
    """Return the GPU that a process shall see: each its own where the user named none."""
    count = torch.cuda.device_count()
    if dict(job.segmenter).get("device") not in (None, "cuda") or count < 2:
        return None
    index = number % count
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[index] if named else str(index)  # CUDA ends the list at the first that is not there


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Hold Ctrl-C back; a process that starts meanwhile never gets it."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # whose start, else with the first process, lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _describe_end(case: ScanInput, code: int | None) -> str:
    by = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    return (
        f"{case.source}: its process was ended twice ({by}), often for lack of memory; "
        "expected: fewer workers, or more memory"
    )
