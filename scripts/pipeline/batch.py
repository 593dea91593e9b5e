"""Segment many scans: a bad one stops no other, a stopped run resumes, the manifest tells all."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import locked, read_json, write_json
from ..io.output_names import MANIFEST, read_report
from ..schema import fits
from .case import CaseSegmenter
from .inputs import ScanInput
from .job import DONE, Entry, Progress, segment_case
from .manifest_schema import FORMAT, EntryContent

SAVING = 20
"""The manifest is written so seldom that it takes at most a 20th of the time: it grows with the
number of cases."""

Entries = Generator[tuple[ScanInput, Entry], None, None]
"""Cases and their manifest entries, in the order in which they end."""


def segment_in_turn(
    model: CaseSegmenter,
    cases: Sequence[ScanInput],
    output: Path,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Entries:
    """Segment cases one after another in this process.

    Args:
        model: what segments.
        cases: see `expand_inputs`.
        output: the folder of the run.
        overwrite: replaces other results in the cases' folders.
        progress: called with (case, slices done now, slices in all).

    Yields:
        Each case when it has ended, with its manifest entry.
    """
    for case in cases:
        yield case, segment_case(model, case, output / case.folder, overwrite, progress)


def record(
    entries: Entries,
    description: Mapping[str, Any],
    cases: Sequence[ScanInput],
    output: Path,
    finished: Callable[[ScanInput, Entry], Any] | None = None,
) -> dict[str, Any]:
    """Let cases be segmented and keep `OUTPUT/manifest.json` up to date.

    Args:
        entries: does the cases: `segment_in_turn`, `segment_in_processes` or `Cluster.segment`.
        description: see `describe`.
        cases: all cases of the run.
        output: the folder of the run.
        finished: called with a case and its manifest entry when the case has ended.

    Returns:
        The manifest: {"format", "created", "finished", "model", "settings", "packages", "machine",
        "cases", "earlier"}, the last with entries of earlier runs whose results are still there.
        "finished" is None where cases are still waiting.

    Raises:
        UserError: if the output folder holds a manifest that is not of this command.
    """
    _earlier_entries(output, set(), "")  # another command's manifest is found before any work
    of_folders: dict[str, Entry] = {
        case.folder: {
            "name": case.name,
            "folder": case.folder,
            "source": str(case.source),
            "kind": case.kind,
            "status": "waiting",
        }
        for case in cases
    }
    manifest = {
        "format": FORMAT,
        "created": _now(),
        "finished": None,
        **description,
        "cases": list(of_folders.values()),
        "earlier": [],
    }
    due = _save(output, manifest)
    try:
        with closing(entries):
            for case, entry in entries:
                of_folders[case.folder].update(entry)
                if finished is not None:
                    finished(case, entry)
                if time.monotonic() >= due:
                    due = _save(output, manifest)
        if all(entry["status"] != "waiting" for entry in of_folders.values()):
            manifest["finished"] = _now()
    finally:
        _save(output, manifest)
    return manifest


def exit_code(manifest: Mapping[str, Any]) -> int:
    """Return 0 if every case is done, 2 if none is, 3 if some are."""
    done = [entry["status"] in DONE for entry in manifest["cases"]]
    return 0 if all(done) else 3 if any(done) else 2


def _save(output: Path, manifest: dict[str, Any]) -> float:
    """Write the manifest with the entries that other runs have made in it meanwhile.

    Returns:
        When it is due again, by `time.monotonic`.
    """
    began = time.monotonic()
    folders = {entry["folder"] for entry in manifest["cases"]}
    with locked(output):
        manifest["earlier"] = _earlier_entries(output, folders, manifest["created"])
        write_json(output / MANIFEST, manifest)
    ended = time.monotonic()
    return ended + (SAVING - 1) * (ended - began)


def read_manifest(output: Path) -> dict[str, Any] | None:
    """Return the manifest of an output folder, None if there is none; UserError for another one."""
    try:
        manifest = read_json(output / MANIFEST)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        manifest = None
    if not isinstance(manifest, dict) or not {"format", "cases", "packages"} <= manifest.keys():
        raise UserError(f"{output / MANIFEST}: not a manifest of this command; expected: another OUTPUT")
    return manifest


def manifest_entries(manifest: Mapping[str, Any]) -> list[Entry]:
    """Return the entries of a manifest, those of the last run first."""
    listed = [entries for key in ("cases", "earlier") if isinstance(entries := manifest.get(key), list)]
    return [entry for entries in listed for entry in entries if fits(EntryContent, entry)]


def _earlier_entries(output: Path, folders: set[str], since: str) -> list[Entry]:
    """Entries of the manifest that is there, of cases which are not in this run.

    Kept are those whose results are there, and what a run beside this one has refused.
    """
    manifest = read_manifest(output)
    if manifest is None:
        return []
    listed = manifest_entries(manifest)
    left = [entry for entry in listed if entry["folder"] not in folders]
    finished = manifest.get("finished")
    beside = not isinstance(finished, str) or (finished or since) >= since
    refused = [entry for entry in left if beside and entry["status"] in ("refused", "failed")]
    return [entry for entry in left if entry in refused or read_report(output / entry["folder"]) is not None]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
