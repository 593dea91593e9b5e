"""The node's work: one study after another from the queue to the archive."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

from ..errors import UserError
from ..io.dicom.series import list_series
from ..io.output_names import derived_objects
from ..pipeline.batch import record
from ..pipeline.case import CaseSegmenter
from ..pipeline.inputs import ScanInput
from ..pipeline.job import DONE, describe, segment_case
from .queue import StudyQueue
from .sending import NotSentError

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_CLEANING_S = 60.0
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 10.0, 3600.0


@dataclass(frozen=True)
class Patience:
    """How long a node waits.

    Attributes:
        quiet_s: a study is taken when nothing of it has arrived for so long.
        keep_s: how long images stay after their study is done.
        retries: how often a study is tried again before it is given up until more of it
            comes or the next start.
        pause_s: before the first retry; it doubles up to an hour.
    """

    quiet_s: float = 30.0
    keep_s: float = 24 * 3600.0
    retries: int = 100
    pause_s: float = _SHORTEST_PAUSE_S


class Node:
    """Segments the studies of a queue with one loaded model and hands the results on.

    Args:
        queue: where studies arrive.
        model: what segments.
        deliver: sends files; raises `NotSentError` where they are to be sent later.
        patience: how long it waits.
        show: called with the status in one line when it may have changed.
    """

    def __init__(
        self,
        queue: StudyQueue,
        model: CaseSegmenter,
        deliver: Callable[[Sequence[Path]], Any],
        patience: Patience | None = None,
        show: Callable[[str], Any] = lambda _line: None,
    ) -> None:
        self._queue, self._model, self._deliver, self._show = queue, model, deliver, show
        self._patience = patience or Patience()
        self._failures: dict[str, int] = {}
        self._due: dict[str, tuple[int | None, float]] = {}  # of the images that were there then
        self.done = 0

    def run(self, stop: Event) -> None:
        """Work until `stop` is set, which is looked at between two studies."""
        cleaning = 0.0
        while not stop.is_set():
            for study in self._queue.waiting():
                if not stop.is_set() and self._is_due(study):
                    self._show(self.status(study))
                    self._try(study)
            if time.monotonic() >= cleaning:
                self._queue.remove_images(self._patience.keep_s)
                cleaning = time.monotonic() + min(_CLEANING_S, self._patience.keep_s)
            self._show(self.status())
            stop.wait(_POLL_S)

    def status(self, at_work: str | None = None) -> str:
        """Return the status in one line."""
        waiting = self._queue.waiting()
        failed = len(self._failures.keys() & waiting)  # a user may have removed others
        words = [f"{len(waiting)} waiting", f"{self.done} done", f"{failed} to be tried again"]
        return ", ".join([*words, *([f"at work on {at_work}"] if at_work else [])])

    def _is_due(self, study: str) -> bool:
        failed, due = self._due.get(study, (None, 0.0))
        again = time.monotonic() >= due or self._queue.version(study) != failed
        return again and self._queue.is_quiet(study, self._patience.quiet_s)

    def _try(self, study: str) -> None:
        version = self._queue.version(study)
        try:
            if lacking := self._queue.lacking(study):
                found = f"{lacking} of its images were removed after it was done, and have not come again"
                raise UserError(f"{found}; expected: the whole study, sent again")
            entries = segment_study(self._model, self._queue.images(study), self._queue.results(study))
            self._send(study, entries)
            cases = [{key: one[key] for key in ("folder", "status")} for one in entries]
            self._queue.finish(study, version, cases=cases)
        except Exception as error:  # a node outlives every study
            self._postpone(study, version, error)
            return
        self._failures.pop(study, None)
        self._due.pop(study, None)
        self.done += 1

    def _send(self, study: str, entries: Sequence[dict[str, Any]]) -> None:
        results = self._queue.results(study)
        folders = [results / one["folder"] for one in entries if one["status"] in DONE]
        files = [file for folder in folders for file in derived_objects(folder)]
        if files:
            self._deliver(files)
        for one in entries:
            if one["status"] not in DONE:
                logger.warning(f"study {study}, {one['folder']}: {one['status']}: {one['message']}")
        logger.info(f"study {study}: {len(entries)} series, {len(files)} objects sent")
        if failed := [one["message"] for one in entries if one["status"] == "failed"]:
            raise RuntimeError(failed[0])

    def _postpone(self, study: str, version: int | None, error: Exception) -> None:
        times = self._failures[study] = self._failures.get(study, 0) + 1
        expected = isinstance(error, NotSentError | UserError | OSError | RuntimeError)
        if times > self._patience.retries:
            self._due[study] = version, float("inf")
            until = "until more of it comes or the node starts again"
            logger.error(f"study {study}: {error}; given up {until}", exc_info=not expected)
            return
        pause = min(self._patience.pause_s * 2 ** (times - 1), _LONGEST_PAUSE_S)
        self._due[study] = version, time.monotonic() + pause
        logger.warning(f"study {study}: {error}; tried again in {pause:.0f} s", exc_info=not expected)


def segment_study(model: CaseSegmenter, images: Path, output: Path) -> list[dict[str, Any]]:
    """Segment every axial CT series of a study; results that are there are not made again.

    Args:
        model: what segments.
        images: the folder of the study's DICOM files.
        output: the folder of the results, and of manifest.json.

    Returns:
        The manifest's entries, one a series, see `record`.
    """
    cases = _cases(images)
    entries = (
        (case, segment_case(_of_series(model, series), case, output / case.folder, overwrite=True))
        for case, series in cases
    )
    manifest = record(entries, describe(model), [case for case, _ in cases], output)
    return list(manifest["cases"])


def _cases(images: Path) -> list[tuple[ScanInput, str | None]]:
    """Return a case for each axial CT series; else one that the reader refuses with its reason."""
    try:
        found = list_series(images)
    except UserError:
        found = []
    series = [one for one in found if one.ct and not one.drawback]
    names: dict[str, str | None] = {f"series_{one.number}_{one.id}": one.id for one in series} or {"study": None}
    return [(ScanInput(images, "dicom", name, name), chosen) for name, chosen in names.items()]


def _of_series(model: CaseSegmenter, series: str | None) -> CaseSegmenter:
    return CaseSegmenter(model.segmenter, replace(model.settings, series=series), model.choice)
