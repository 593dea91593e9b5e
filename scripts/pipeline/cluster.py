"""Segment cases on a Dask cluster: a task a scan, one model a worker, results on a shared disk."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from ..errors import UserError
from ..inference.metadata import read_metadata
from ..io.output_names import MANIFEST
from ..version import bundle_version
from .batch import Entries
from .inputs import ScanInput
from .job import Entry, Job, describe, identity

if TYPE_CHECKING:
    from distributed import Worker

logger = logging.getLogger(__name__)

CONNECT_S = 20
TASKS = 5000
"""Cases that the scheduler knows at a time: it keeps about 3 KB for each."""
ATTEMPTS = 4
"""How often a case is given to workers that turn out to be unfit."""
_ONE_SCAN = threading.Lock()
"""A worker with several threads gives all of them to one scan."""


class _Restriction(TypedDict, total=False):
    workers: list[str]
    allow_other_workers: bool


class Cluster:
    """A connection to the scheduler of a Dask cluster that somebody has started.

    The workers import this package and see the paths of inputs and output. A worker that does not,
    or has another version, other weights or other packages, gets no case.

    Args:
        scheduler: its address, such as "tcp://host:8786", or its file (`dask scheduler
            --scheduler-file`).

    Raises:
        UserError: if no scheduler answers, or the extra `cluster` is not installed.
    """

    def __init__(self, scheduler: str) -> None:
        from distributed import Client

        self.scheduler = scheduler
        where = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # `segment` says what happened
        try:
            self.client = Client(**where, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{scheduler}: no Dask scheduler answers ({reason}); expected: its address") from None
        self.unfit: dict[str, str] = {}

    def close(self) -> None:
        """End the connection; the cluster goes on."""
        with suppress(Exception):  # a scheduler that is gone
            self.client.close(timeout=CONNECT_S)

    def prepare(self, job: Job, case: ScanInput) -> tuple[Job, dict[str, Any]]:
        """Load the model in all workers, and leave out those that do not fit; wait for the first.

        Args:
            job: model, settings and output folder.
            case: the first case, which the workers have to see.

        Returns:
            The job with what the workers must have in common, and the description of the run.

        Raises:
            UserError: if no worker fits.
        """
        if not self._workers():
            logger.info(f"{self.scheduler}: waiting for a worker")
            self.client.wait_for_workers(1)
        fit = self._look_at_workers(job, case)
        if not fit:
            raise UserError(f"{self.scheduler}: no worker can be used; expected: one that fits")
        (expected, _), *_ = Counter(map(identity, fit)).most_common()
        return replace(job, expected=expected), next(one for one in fit if identity(one) == expected)

    def _look_at_workers(self, job: Job, case: ScanInput) -> list[dict[str, Any]]:
        """Return what the workers that fit say of themselves; leave out the others."""
        ours = {"version": bundle_version(), "weights_sha256": read_metadata(job.model.path)["sha256"]}
        fit = []
        for address, answer in sorted(self.client.run(_look, job, case, on_error="return").items()):
            if isinstance(answer, BaseException):
                self._leave_out(address, _reason(answer))
                continue
            found = {key: answer["model"][key] for key in ours}
            if found == ours:
                fit.append(answer)
            else:
                self._leave_out(address, f"it has {found}; expected: {ours}")
        return fit

    def segment(self, job: Job, cases: Sequence[ScanInput]) -> Entries:
        """Segment cases in the workers.

        A case whose worker dies is given to another one, as often as the scheduler's
        `allowed-failures` says. If the scheduler or the last worker that fits is lost the generator
        ends, and the cases left are still waiting.

        Args:
            job: what `prepare` has returned.
            cases: the cases.

        Yields:
            Each case when it has ended, with its manifest entry.
        """
        from distributed import as_completed

        waiting, tries, running = deque(cases), Counter[ScanInput](), dict[Any, ScanInput]()
        ended = as_completed(loop=self.client.loop)
        try:
            while waiting or running:
                given = [waiting.popleft() for _ in range(min(len(waiting), TASKS - len(running)))]
                where = self._restriction() if given else {}
                for case in given:
                    future = self.client.submit(_segment, job, case, pure=False, **where)
                    running[future] = case
                    ended.add(future)
                future = next(ended)
                case = running.pop(future)
                address, entry = self._result(future, case)
                if entry["status"] == "unfit" and case.source.exists():
                    if address:
                        self._leave_out(address, entry["message"])
                    else:  # it could not even take the task
                        self._look_at_workers(job, case)
                    tries[case] += 1
                    if tries[case] < ATTEMPTS:
                        waiting.append(case)
                        continue
                yield case, entry | ({"status": "failed"} if entry["status"] == "unfit" else {})
        except (CancelledError, UserError, OSError) as error:
            found = f"the scheduler is gone ({getattr(error, 'reason', 'cancelled')})"
            found = str(error) if isinstance(error, UserError) else found
            logger.error(f"error: {self.scheduler}: {found}; what is done is kept, the same command resumes")
        finally:
            with suppress(Exception):  # a scheduler that is gone
                self.client.cancel(list(running))

    def _result(self, future: Any, case: ScanInput) -> tuple[str, Entry]:
        """Return a worker's address and the entry of its case; also where the worker has died."""
        from distributed import KilledWorker

        try:
            return future.result()
        except CancelledError:
            raise
        except KilledWorker as error:
            found = f"{case.source}: {error.allowed_failures + 1} workers ended at it, often for lack of memory"
            return "", {"status": "failed", "message": f"{found}; expected: workers with more memory"}
        except Exception as error:
            return "", {"status": "unfit", "message": _reason(error)}

    def _workers(self) -> set[str]:
        return set(self.client.scheduler_info()["workers"])

    def _restriction(self) -> _Restriction:
        """Return where a task may run; with the last fit worker a preference ends, too."""
        if not self.unfit:
            return {}
        fit = self._workers() - self.unfit.keys()
        if not fit:
            raise UserError("no worker can be used any more")
        return {"workers": sorted(fit), "allow_other_workers": True}

    def _leave_out(self, address: str, reason: str) -> None:
        if address not in self.unfit:
            self.unfit[address] = reason
            logger.error(f"error: worker {address} is left out: {reason}")


async def _look(job: Job, case: ScanInput, dask_worker: Worker) -> dict[str, Any]:
    """Describe a worker's model; raises `UserError` if it does not see the case."""
    _require(case.source, job.settings.lungs)
    return await asyncio.to_thread(_load_and_describe, job, dask_worker.state.nthreads)  # it still answers meanwhile


def _load_and_describe(job: Job, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)  # as in `_segment`, which finds the network compiled
    return describe(job.load())


def _segment(job: Job, case: ScanInput) -> tuple[str, Entry]:
    """Segment a case in a worker; the status is "unfit" if another worker has to do it."""
    from distributed import get_worker

    worker = get_worker()
    with _ONE_SCAN:
        torch.set_num_threads(worker.state.nthreads)
        try:
            _require(case.source, job.settings.lungs, job.output / MANIFEST)
            job.load()
        except Exception as error:
            return worker.address, {"status": "unfit", "message": _reason(error)}
        return worker.address, job(case)


def _require(*paths: Path | None) -> None:
    for path in filter(None, paths):
        if not path.exists():
            raise UserError(f"{path}: not there; expected: the file system of the machine that gave the command")


def _reason(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error}; expected: this package installed, or its folder on PYTHONPATH"
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
