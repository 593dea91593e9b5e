"""Names of the results of `segment`, by which they are recognised and protected."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_json

MANIFEST = "manifest.json"
REPORT = "report.json"
DOWNLOADS = "downloads"  # folder in OUTPUT of what a DICOMweb server sent, so that a run resumes
PDF = "report.pdf"
SEG, SR, SC, DICOM_PDF = "infection_seg.dcm", "infection_sr.dcm", "infection_sc_{:02d}.dcm", "infection_pdf.dcm"
KEY = "run_key"  # entry of a report that tells which input, weights and settings made it: equal keys, equal results
_WRITTEN = re.compile(
    r"(infection|probability)\.(nii\.gz|nrrd|mha|png)|infection_(seg|sr|sc_\d\d|pdf)\.dcm|"
    r"report\.(json|html|pdf)|preview\.png"
)


def read_report(folder: Path) -> dict[str, Any] | None:
    """Return the report of an earlier run in a case's folder; None if there is none."""
    try:
        report = read_json(folder / REPORT)
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and KEY in report else None


def holds_mask(folder: Path) -> bool:
    """Whether a mask that is not empty lies in a case's folder."""
    return any(path.stat().st_size for path in folder.glob("infection.*"))


def derived_objects(folder: Path) -> list[Path]:
    """Return the DICOM objects among a case's results: what an archive gets."""
    return sorted(folder.glob("*.dcm"))


def foreign_files(folder: Path) -> list[str]:
    """Return names in a case's folder not written by `segment`, sorted; all without a report."""
    ours = read_report(folder) is not None
    return sorted(path.name for path in folder.iterdir() if not (ours and _WRITTEN.fullmatch(path.name)))


def walk_files(
    root: Path, output: Path | None = None, unreadable: list[Path] | None = None
) -> Iterator[tuple[Path, list[Path]]]:
    """Walk a folder and its subfolders, sorted, without hidden files and earlier results.

    Links to folders are followed. A folder is entered once, by the path that comes first, so that
    loops end. The folder `output` is passed over with all that it holds.

    Args:
        root: where to begin.
        output: the folder of the results.
        unreadable: gets the folders that cannot be read, which are passed over then.

    Yields:
        A folder and its files: no broken links, no pipes.

    Raises:
        UserError: for a folder that cannot be read, unless `unreadable` is given: what lies there
            may belong to a scan.
    """

    def unread(error: OSError) -> None:
        if unreadable is None:
            found = f"{error.filename}: cannot be read ({error.strerror})"
            raise UserError(f"{found}; expected: a folder that you may read") from None
        unreadable.append(Path(error.filename))

    left_out = None if output is None else output.resolve()
    entered = {root.resolve()}
    for top, folders, names in os.walk(root, followlinks=True, onerror=unread):
        inside = Path(top)
        folders[:] = _to_enter(inside, folders, entered, left_out)
        if REPORT in names and read_report(inside) is not None:
            folders.clear()
            continue
        files = [inside / name for name in sorted(names) if not name.startswith(".") and name != MANIFEST]
        yield inside, [file for file in files if file.is_file()]


def _to_enter(inside: Path, folders: list[str], entered: set[Path], left_out: Path | None) -> list[str]:
    """Return subfolders that no other path has led to; folders before links."""
    chosen = []
    for name in sorted(folders, key=lambda name: ((inside / name).is_symlink(), name)):
        place = (inside / name).resolve()
        if name.startswith((".", "__MACOSX")) or place == left_out or place in entered:
            continue
        entered.add(place)
        chosen.append(name)
    return sorted(chosen)


def find_passed_over(root: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """Return what `walk_files` passes over, by what it is; of hidden files those with a suffix."""
    unreadable, broken, hidden, results = (list[Path]() for _ in range(4))
    for folder in [folder for folder, _ in walk_files(root, unreadable=unreadable)] if root.is_dir() else []:
        for path in sorted(folder.iterdir()):
            if path.is_symlink() and not path.exists():
                broken.append(path)
            elif path.is_dir() and not path.name.startswith(".") and read_report(path) is not None:
                results.append(path)
            elif path.name.startswith(".") and path.name.lower().endswith(suffixes) and path.is_file():
                hidden.append(path)
    return {
        "folders that cannot be read": unreadable,
        "links to what is not there": broken,
        "hidden files": hidden,
        "folders with results of earlier runs": results,
    }
