"""Segment many scans with one loaded model: a bad one stops no other, a stopped run resumes."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError, find_user_error
from ..files import locked, write_json
from ..io.output_names import MANIFEST, read_report
from ..settings import describe_machine
from .case import CaseSegmenter
from .inputs import ScanInput

logger = logging.getLogger(__name__)

FORMAT = 1
PACKAGES = ("torch", "monai", "numpy", "nibabel", "SimpleITK", "pydicom", "highdicom")

Status = Literal["done", "found done", "refused", "failed", "waiting"]
Progress = Callable[[ScanInput, int, int], Any]


def segment_cases(
    model: CaseSegmenter,
    cases: Sequence[ScanInput],
    output: Path,
    overwrite: bool = False,
    progress: Progress | None = None,
    finished: Callable[[ScanInput, dict[str, Any]], Any] | None = None,
) -> dict[str, Any]:
    """Segment cases one after another and keep `OUTPUT/manifest.json` up to date.

    A case whose results are there, made from the same input with the same weights and settings, is
    not done again.

    Args:
        model: what segments.
        cases: see `expand_inputs`.
        output: the folder of the run.
        overwrite: replaces other results in the cases' folders.
        progress: called with (case, slices done now, slices in all).
        finished: called with a case and its manifest entry when the case has ended.

    Returns:
        The manifest: {"format", "created", "finished", "model", "settings", "packages", "machine",
        "cases", "earlier"}, the last with entries of earlier runs whose results are still there.

    Raises:
        UserError: if the output folder holds a manifest that is not of this command.
    """
    _earlier_entries(output, set(), "")  # another command's manifest is found before any work
    entries: list[dict[str, Any]] = [
        {"name": case.name, "folder": case.folder, "source": str(case.source), "kind": case.kind, "status": "waiting"}
        for case in cases
    ]
    manifest = {**_describe_run(model), "cases": entries, "earlier": []}
    for case, entry in zip(cases, entries, strict=True):
        _save(output, manifest)
        entry.update(_segment_one(model, case, output / case.folder, overwrite, progress))
        if finished is not None:
            finished(case, entry)
    manifest["finished"] = _now()
    _save(output, manifest)
    return manifest


def exit_code(manifest: dict[str, Any]) -> int:
    """Return 0 if every case is done, 2 if none is, 3 if some are."""
    done = [entry["status"] in ("done", "found done") for entry in manifest["cases"]]
    return 0 if all(done) else 3 if any(done) else 2


def _segment_one(
    model: CaseSegmenter, case: ScanInput, folder: Path, overwrite: bool, progress: Progress | None
) -> dict[str, Any]:
    """The entry of a case: its status, and why it could not be done or how long it took."""
    try:
        earlier = model.finished(case, folder)
        if earlier is not None:
            return _entry("found done", earlier, folder)
        report = model.run(case, folder, overwrite, progress and (lambda *stage: progress(case, *stage)))
        return _entry("done", report, folder)
    except Exception as error:
        mistake = find_user_error(error)
        if mistake is not None:
            return {"status": "refused", "message": str(mistake)}
        logger.exception(f"{case.source}: failed")
        return {"status": "failed", "message": f"{case.source}: {type(error).__name__}: {error}"}


def _entry(status: Status, report: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {
        "status": status,
        "files": sorted(path.name for path in folder.iterdir()),
        "warnings": sum(note["kind"] == "warning" for note in report["notes"]),
        "timings_s": report["timings_s"],
    }


def _save(output: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest with the entries that other runs have made in it meanwhile."""
    folders = {entry["folder"] for entry in manifest["cases"]}
    with locked(output):
        manifest["earlier"] = _earlier_entries(output, folders, manifest["created"])
        write_json(output / MANIFEST, manifest)


def _earlier_entries(output: Path, folders: set[str], since: str) -> list[dict[str, Any]]:
    """Entries of the manifest that is there, of cases which are not in this run.

    Kept are those whose results are there, and what a run beside this one has refused.
    """
    try:
        manifest = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or not {"format", "cases", "packages"} <= manifest.keys():
        raise UserError(f"{output / MANIFEST}: not a manifest of this command; expected: another OUTPUT")
    entries = [*manifest["cases"], *manifest.get("earlier", [])]
    left = [entry for entry in entries if entry["folder"] not in folders]
    beside = (manifest.get("finished") or since) >= since
    refused = [entry for entry in left if beside and entry["status"] in ("refused", "failed")]
    return [entry for entry in left if entry in refused or read_report(output / entry["folder"]) is not None]


def _describe_run(model: CaseSegmenter) -> dict[str, Any]:
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(model.settings).items()}
    return {
        "format": FORMAT,
        "created": _now(),
        "finished": None,
        "model": model.model,
        "settings": settings,
        "packages": {"python": platform.python_version(), **_versions()},
        "machine": describe_machine(model.segmenter.device),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # those of an extra
            found[name] = version(name)
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
