"""The studies that a node received, on disk: what waits, what is done, what may be removed.

    FOLDER/studies/STUDY_UID/images/INSTANCE_UID.dcm   as received
    FOLDER/studies/STUDY_UID/results/                  as `segment` writes them, with manifest.json
    FOLDER/studies/STUDY_UID/done.json                 how it ended; absent while it waits

A study waits as long as its images were changed after `done.json` was written. So a process that is
killed at any moment finds all of its work again.
"""

from __future__ import annotations

import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from ..files import read_json, write_atomic, write_json
from .peers import UID

_UID = re.compile(UID)


class StudyQueue:
    """Studies in a folder; several threads may store into it while one takes out of it."""

    def __init__(self, folder: Path) -> None:
        self._studies = folder / "studies"
        self._studies.mkdir(parents=True, exist_ok=True)
        self._lock = Lock()
        self._waiting = {one.name for one in self._studies.iterdir() if self._waits(one.name)}

    def images(self, study: str) -> Path:
        """Return the folder of a study's images."""
        return self._studies / study / "images"

    def results(self, study: str) -> Path:
        """Return the folder of a study's results."""
        return self._studies / study / "results"

    def store(self, study: str, instance: str, content: bytes) -> None:
        """Keep an image, durably; one that is there with the same content changes nothing.

        Raises:
            ValueError: if study or instance is no UID.
            OSError: if the disk takes it not.
        """
        for uid in (study, instance):
            if not _UID.fullmatch(uid):
                raise ValueError(f"{uid!r} is no UID")
        path = self.images(study) / f"{instance}.dcm"
        with self._lock:
            with suppress(FileNotFoundError):
                if path.stat().st_size == len(content) and path.read_bytes() == content:
                    return
            write_atomic(path, lambda temporary: temporary.write_bytes(content))
            self._waiting.add(study)

    def version(self, study: str) -> int:
        """Return when the images of a study changed last, in nanoseconds since 1970."""
        return self.images(study).stat().st_mtime_ns

    def waiting(self) -> list[str]:
        """Return the studies that wait, the one that was received first at the front."""
        with self._lock:
            self._waiting = {
                study for study in self._waiting if self.images(study).is_dir()
            }  # none that a user removed
            return sorted(self._waiting, key=self.version)

    def is_quiet(self, study: str, seconds: float) -> bool:
        """Whether nothing of a study has arrived for so long."""
        return time.time() - self.version(study) / 1e9 >= seconds

    def finish(self, study: str, version: int, **outcome: Any) -> None:
        """Record how a study ended, of which these images were taken; later ones wait again."""
        with self._lock:
            write_json(self._studies / study / "done.json", {"images": version, "at": time.time(), **outcome})
            if not self._waits(study):
                self._waiting.discard(study)

    def remove_images(self, after_s: float) -> None:
        """Remove the images of studies that were done so long ago; the results stay."""
        with self._lock:
            for images in self._studies.glob("*/images"):
                study = images.parent.name
                done = self._done(study)
                if study not in self._waiting and done and time.time() - done["at"] >= after_s:
                    shutil.rmtree(images)

    def _waits(self, study: str) -> bool:
        if not self.images(study).is_dir():
            return False
        done = self._done(study)
        return done is None or done["images"] != self.version(study)

    def _done(self, study: str) -> dict[str, Any] | None:
        try:
            done: dict[str, Any] = read_json(self._studies / study / "done.json")
        except FileNotFoundError:
            return None
        return done
