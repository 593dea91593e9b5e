"""A run as any process needs it: which model, which settings, where the results go."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ..errors import MachineError, UserError, find_user_error
from ..inference.metadata import metadata_path
from ..inference.segmenter import Segmenter
from ..inference.shipped import Choice
from ..io.limits import limited
from ..settings import describe_machine, package_versions
from .case import CaseSegmenter, Settings
from .inputs import ScanInput, input_stamp
from .measuring import OUTSIDE

logger = logging.getLogger(__name__)

PACKAGES = ("torch", "monai", "numpy", "nibabel", "SimpleITK", "pydicom", "highdicom")
DONE = ("done", "found done")

Entry = dict[str, Any]
"""What the manifest says of a case: {"status", "files", "warnings", "removed_voxels", "timings_s",
"series", "volume", "input_stamp"} or {"status", "message"}. The status is one of `DONE`, "refused",
"failed" or "waiting"."""
Progress = Callable[[ScanInput, int, int], Any]


@dataclass(frozen=True)
class Job:
    """The model, settings and output folder of a run; it survives pickling.

    Attributes:
        model: the weights; every process takes shipped ones from its own installation.
        segmenter: arguments of `Segmenter` but for the weights.
        settings: what the user chose.
        output: the folder of the run, an absolute path.
        overwrite: replaces other results in the cases' folders.
        expected: the part of `describe` that has to be equal in all processes, as JSON; empty for
            the first of them.
    """

    model: Choice
    segmenter: tuple[tuple[str, Any], ...]
    settings: Settings
    output: Path
    overwrite: bool = False
    expected: str = ""

    def build(self) -> CaseSegmenter:
        """Load the model.

        Raises:
            UserError: if weights or settings cannot be used.
        """
        return CaseSegmenter(Segmenter(self.model.path, **dict(self.segmenter)), self.settings, self.model)

    def load(self) -> CaseSegmenter:
        """Return the model that this process has loaded for the same job and weights, else load it.

        Raises:
            UserError: as `build` does, and if the model is not the one expected.
        """
        weights = self.model.path
        files = [path for path in (weights, metadata_path(weights)) if path.is_file()]
        alike = replace(self, output=Path(), overwrite=False, expected="")
        model = _kept(alike, tuple(path.stat().st_mtime_ns for path in files))
        if self.expected and (found := identity(describe(model))) != self.expected:
            raise UserError(_difference(json.loads(found), json.loads(self.expected)))
        return model

    def __call__(self, case: ScanInput) -> Entry:
        """Segment a case; return its manifest entry."""
        try:
            model = self.load()
        except Exception as error:
            return describe_failure(case, error)
        return segment_case(model, case, self.output / case.folder, self.overwrite)


@lru_cache(maxsize=1)
def _kept(job: Job, _written: tuple[int, ...]) -> CaseSegmenter:
    """Build the model of a job; weights that were written anew are other ones."""
    return job.build()


def segment_case(
    model: CaseSegmenter, case: ScanInput, folder: Path, overwrite: bool = False, progress: Progress | None = None
) -> Entry:
    """Segment a case unless its results are there.

    Args:
        model: what segments.
        case: the input.
        folder: where its results go.
        overwrite: replaces other results there.
        progress: called with (case, slices done now, slices in all).

    Returns:
        Its manifest entry: why it could not be done, or how long it took.
    """
    try:
        step = partial(progress, case) if progress else None
        with limited(model.settings.limits):
            if done := _find_done(model, case, folder):
                return done
            source = _describe_input(model, case)  # before it is read: what changes meanwhile is another scan
            return _describe_done("done", model.run(case, folder, overwrite, step), folder) | source
    except Exception as error:
        with suppress(Exception):  # a run beside this one may have done it meanwhile
            if done := _find_done(model, case, folder):
                return done
        return describe_failure(case, error)


def _find_done(model: CaseSegmenter, case: ScanInput, folder: Path) -> Entry | None:
    earlier = model.finished(case, folder)
    if earlier is None:
        return None
    return _describe_done("found done", earlier, folder) | _describe_input(model, case)


def _describe_input(model: CaseSegmenter, case: ScanInput) -> Entry:
    """Return what reads the same scan again, and tells whether it is the same."""
    chosen = model.settings
    return {"series": chosen.series, "volume": chosen.volume, "input_stamp": input_stamp(case)}


def _describe_done(status: str, report: Mapping[str, Any], folder: Path) -> Entry:
    return {
        "status": status,
        "files": sorted(path.name for path in folder.iterdir()),
        "warnings": sum(note["kind"] == "warning" for note in report["notes"]),
        "removed_voxels": sum(report["measures"]["removed"][f"{place}_voxels"] for place in OUTSIDE),
        "timings_s": report["timings_s"],
    }


def describe_failure(case: ScanInput, error: Exception) -> Entry:
    """Return the manifest entry of a case that ended with an error; one of ours is logged."""
    mistake = find_user_error(error)
    if mistake is not None:
        status = "failed" if isinstance(mistake, MachineError) else "refused"
        return {"status": status, "message": str(mistake)}
    logger.error(f"{case.source}: failed", exc_info=error)
    return {"status": "failed", "message": f"{case.source}: {type(error).__name__}: {error}"}


def describe(model: CaseSegmenter) -> dict[str, Any]:
    """Describe what the results of a run depend on: model, settings, packages, machine."""
    return {
        "model": model.model,
        "settings": {"model": model.choice.describe()}
        | {key: str(value) if isinstance(value, Path) else value for key, value in asdict(model.settings).items()},
        "packages": {"python": platform.python_version(), **package_versions(PACKAGES)},
        "machine": describe_machine(model.segmenter.device),
    }


def identity(description: Mapping[str, Any]) -> str:
    """Return the part of `describe` that has to be equal in all processes of a run, as JSON."""
    return json.dumps({key: description[key] for key in ("model", "packages")}, sort_keys=True)


def _difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Say in which entry two identities differ first."""
    for part in ("model", "packages"):
        for key in sorted(found[part].keys() | expected[part].keys()):
            one, other = found[part].get(key), expected[part].get(key)
            if one != other:
                return f"{key} is {one}; expected: {other}"
    return ""
