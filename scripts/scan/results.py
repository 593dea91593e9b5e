"""What `segment` leaves in its output folder: names by which results are known, passed over and kept from harm."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
REPORT = "report.json"
KEY = "run_key"
"""Entry of a report that tells which input, weights and settings made it: equal keys, equal results."""

_WRITTEN = re.compile(
    r"(infection|probability)\.(nii\.gz|nrrd|mha|png)|infection_seg\.dcm|report\.(json|html)|preview\.png"
)


def read_report(folder: Path) -> dict[str, Any] | None:
    """Returns the report of an earlier run in a case's folder; None if there is none."""
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and KEY in report else None


def foreign_files(folder: Path) -> list[str]:
    """Names in a case's folder that `segment` did not write, sorted; all of them if no report of it is there."""
    ours = read_report(folder) is not None
    return sorted(path.name for path in folder.iterdir() if not (ours and _WRITTEN.fullmatch(path.name)))


def walk_files(root: Path, output: Path | None = None) -> Iterator[tuple[Path, list[Path]]]:
    """Goes through a folder and its subfolders, sorted, without what is hidden and without results of earlier runs.

    Args:
        root: the folder.
        output: a folder that is passed over with all that it holds.

    Yields:
        A folder and its files: no broken links, no pipes.
    """
    left_out = None if output is None else output.resolve()
    for top, folders, names in os.walk(root):
        inside = Path(top)
        shown = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        folders[:] = sorted(name for name in shown if (inside / name).resolve() != left_out)
        if REPORT in names and read_report(inside) is not None:
            folders.clear()
            continue
        files = [inside / name for name in sorted(names) if not name.startswith(".") and name != MANIFEST]
        yield inside, [file for file in files if file.is_file()]
