"""The results that `segment` wrote, and the scans that they were made from."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..io.grids import Grid, check_belongs
from ..io.masks import mask_suffix
from ..io.output_names import MANIFEST, REPORT, read_report
from ..io.reading import read_scan
from ..io.volume import Scan
from ..pipeline.batch import manifest_entries, read_manifest
from ..pipeline.case import read_case
from ..pipeline.inputs import ScanInput, input_stamp

EXPECTED = "expected: an output folder of `segment`, or the folder of one of its cases"

STAMP = "input_stamp"
"""Key of an entry by which a scan is recognised; earlier versions wrote none."""


@dataclass(frozen=True, eq=False)
class CaseResult:
    """One case's results.

    Attributes:
        folder: where they lie.
        report: what report.json holds.
        entry: what the manifest says of the case.
    """

    folder: Path
    report: Mapping[str, Any]
    entry: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the scan."""
        return str(self.report["case"]["name"])

    @property
    def picture(self) -> bool:
        """Whether the scan is a 2-D image."""
        return bool(self.report["case"]["kind"] == "picture")

    @property
    def source(self) -> ScanInput:
        """The scan that was segmented."""
        entry = self.entry
        return ScanInput(Path(entry["source"]), entry["kind"], entry["name"], entry["folder"])


def find_cases(results: Path) -> list[CaseResult]:
    """List the cases of an output folder, or the one whose folder it is.

    Raises:
        UserError: if there are no results, or the manifest beside them is missing.
    """
    if not results.is_dir():
        raise UserError(f"{results}: {'a file' if results.exists() else 'no such folder'}; {EXPECTED}")
    folder = results.resolve()
    single = read_report(folder) is not None
    output = folder.parent if single else folder
    manifest = read_manifest(output)
    if manifest is None:
        raise UserError(f"{results}: without {output / MANIFEST}, which names the scans; {EXPECTED}, not moved")
    found = []
    for entry in manifest_entries(manifest):
        report = read_report(output / entry["folder"])
        if (
            report is not None
            and {"source", "kind"} <= entry.keys()
            and (not single or output / entry["folder"] == folder)
        ):
            found.append(CaseResult(output / entry["folder"], report, entry))
    if not found:
        raise UserError(f"{results}: {output / MANIFEST} names no case with {REPORT} there; {EXPECTED}")
    return found


def find_case(results: Path) -> CaseResult:
    """Return the only case of a folder; UserError for several, and as `find_cases` does."""
    found = find_cases(results)
    if len(found) > 1:
        raise UserError(f"{results}: {len(found)} cases; expected: the folder of one case")
    return found[0]


def check_source(case: CaseResult) -> None:
    """Raise UserError if the scan of a case is not at its place, or its files have changed."""
    path = case.source.source
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; expected: the scan of {case.folder}, where it was segmented")
    if case.entry.get(STAMP) not in (None, input_stamp(case.source)):
        raise UserError(
            f"{path}: has changed (number, size or date of its files) since {case.folder} was made from it; "
            "expected: the scan as it was, or segment it again"
        )


def unchecked_remark(case: CaseResult) -> str:
    """Say that nobody can tell whether the scan has changed; "" where `check_source` can."""
    if case.entry.get(STAMP) is not None:
        return ""
    return (
        f"{case.folder.parent / MANIFEST}: an earlier version wrote it, without `{STAMP}`: whether the scan of "
        f"{case.name} has changed since is not checked; the same `segment` command again adds it"
    )


def read_volumes(case: CaseResult) -> tuple[Scan, Scan]:
    """Read the scan of a case and its mask.

    Returns:
        Two scans on one grid; infection is wherever the second is above 0.

    Raises:
        UserError: as `check_source` does; if one cannot be read; if the grids differ.
    """
    check_source(case)
    with ExitStack() as stack:
        scan = read_case(case.source, stack, case.entry.get("volume"), case.entry.get("series"))
    mask = read_mask(case)
    grid, wanted = (Grid(str(one.path), one.values.shape, one.affine) for one in (mask, scan))
    check_belongs(grid, wanted)
    return scan, mask


def read_mask(case: CaseResult) -> Scan:
    """Read the mask of a case, above 0 where infected; UserError if it is missing or damaged."""
    suffix = mask_suffix(case.source.source) if case.source.kind == "file" else ".nii.gz"
    return read_scan(case.folder / f"infection{suffix}")
