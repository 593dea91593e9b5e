"""The studies that a node received, on disk: what waits, what is done, what may be removed.

    FOLDER/studies/STUDY_UID/images/INSTANCE_UID.dcm   as received
    FOLDER/studies/STUDY_UID/results/                  as `segment` writes them, with manifest.json
    FOLDER/studies/STUDY_UID/done.json                 how it ended; absent while it waits

A study waits as long as its images were changed after `done.json` was written. So a process that is
killed at any moment finds all of its work again. Images are removed all at once, and `done.json`
keeps their names: one that comes later is no study by itself.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from ..files import read_json, write_atomic, write_json
from .peers import UID

logger = logging.getLogger(__name__)

_UID = re.compile(UID)
_DONE, _GOING = "done.json", ".images"


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

    def version(self, study: str) -> int | None:
        """Return when the images of a study changed last, in ns since 1970; None without any."""
        try:
            return self.images(study).stat().st_mtime_ns
        except OSError:  # a user may have removed it at any moment
            return None

    def waiting(self) -> list[str]:
        """Return the studies that wait, the one that was received first at the front."""
        with self._lock:
            found = {study: version for study in self._waiting if (version := self.version(study)) is not None}
            self._waiting = set(found)
            return sorted(found, key=found.__getitem__)

    def is_quiet(self, study: str, seconds: float) -> bool:
        """Whether nothing of a study has arrived for so long."""
        version = self.version(study)
        return version is not None and time.time() - version / 1e9 >= seconds

    def lacking(self, study: str) -> int:
        """Count images that were removed after the study was done, and have not come again."""
        done = self._done(study) or {}
        return sum(not (self.images(study) / name).exists() for name in done.get("removed", []))

    def finish(self, study: str, version: int | None, **outcome: Any) -> None:
        """Record how a study ended, of which these images were taken; later ones wait again."""
        with self._lock:
            write_json(self._studies / study / _DONE, {"images": version, "at": time.time(), **outcome})
            if not self._waits(study):
                self._waiting.discard(study)

    def remove_images(self, after_s: float) -> None:
        """Remove the images of studies that were done so long ago; the results stay."""
        with self._lock:
            for folder in self._studies.iterdir():
                try:
                    self._remove_images(folder.name, after_s)
                except OSError as error:
                    logger.warning(f"study {folder.name}: its images cannot be removed ({error})")

    def _remove_images(self, study: str, after_s: float) -> None:
        images, going = self.images(study), self._studies / study / _GOING
        if going.is_dir():  # of a process that was killed
            shutil.rmtree(going)
        done = self._done(study)
        if study in self._waiting or not done or time.time() - done["at"] < after_s or not images.is_dir():
            return
        removed = sorted(one.name for one in images.glob("*.dcm"))  # not what a killed process left unfinished
        write_json(self._studies / study / _DONE, done | {"removed": removed})
        images.rename(going)  # so that no part of a study is ever taken for the whole
        shutil.rmtree(going)

    def _waits(self, study: str) -> bool:
        version = self.version(study)
        if version is None:
            return False
        done = self._done(study)
        return done is None or done["images"] != version

    def _done(self, study: str) -> dict[str, Any] | None:
        path = self._studies / study / _DONE
        try:
            done = read_json(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning(f"{path}: cannot be read ({error}); the study is done again")
            return None
        return done if isinstance(done, dict) and {"images", "at"} <= done.keys() else None
