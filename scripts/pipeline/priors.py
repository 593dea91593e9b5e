"""The report of an earlier scan to compare with: found, read, and refused where it is no prior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import fit_name, read_json
from ..io.output_names import KEY, REPORT
from ..io.volume import Note, Scan
from ..report.change import describe_change
from ..report.patient import is_patient
from ..report.report import plain
from ..schema import check_content
from .prior_schema import PriorReport

_EXPECTED = f"expected: a {REPORT} of this command, or a folder with one"
_ALIKE = ("weights_sha256", "preprocessing")
_POINT = ("threshold", "smallest_lesion_mm3", "keep_outside", "through_plane_mm")
_DEFAULTS = {"through_plane_mm": 0.0}  # of what reports of earlier versions do not state
NO_ML = "the voxel size is unknown; expected with --prior: volumes in ml"


@dataclass(frozen=True)
class Prior:
    """An earlier report to compare with.

    Attributes:
        report: its content.
        same_patient: whether it is of the scan's patient; None if that is not known.
        notes: findings about it.
    """

    report: Mapping[str, Any]
    same_patient: bool | None
    notes: list[Note]

    def compare(self, scan: Scan, measures: Mapping[str, Any]) -> tuple[dict[str, Any], list[Note]]:
        """Describe what changed until the scan, see `describe_change`, with findings about that."""
        change = describe_change(self.report, plain(measures), scan.facts.get("date"), self.same_patient)
        if not change["reason"]:
            return change, []
        text = f"The volumes of this scan and of the earlier one are not comparable: {change['reason']}."
        return change, [Note("prior_lungs", text, "warning")]


def single_report(path: Path) -> Path | None:
    """Return the report that a path stands for whatever the case; None if it must hold several."""
    if path.is_file():
        return path
    return path / REPORT if (path / REPORT).is_file() else None


def find_prior(path: Path, name: str) -> Path:
    """Find the earlier report for a case.

    `path` is the report, its folder, or a folder of results in which one is called as the case.

    Raises:
        UserError: if there is none.
    """
    found = single_report(path) or single_report(path / fit_name(name))
    if found is None:
        raise UserError(f"{path}: no earlier report for {name}; {_EXPECTED}, alone or called {fit_name(name)}")
    return found


def read_prior(path: Path) -> dict[str, Any]:
    """Read an earlier report.

    Raises:
        UserError: if it is no report of this command, holds something else than such a report does,
            or no volumes in ml.
    """
    try:
        report = read_json(path)
    except (OSError, ValueError):
        report = None
    if not isinstance(report, dict) or not {KEY, "case", "measures", "model"} <= report.keys():
        raise UserError(f"{path}: no report of this command; {_EXPECTED}")
    if _lacks_size(report["measures"]):
        raise UserError(f"{path}: {NO_ML}")
    check_content(PriorReport, report, path)
    return report


def _lacks_size(measures: Any) -> bool:
    size = measures.get("voxel_size") if isinstance(measures, dict) else None
    return isinstance(size, dict) and "spacing_mm" not in size


def open_prior(path: Path, scan: Scan, model: Mapping[str, Any], force: bool) -> Prior:
    """Read the earlier report that a scan is compared with.

    Args:
        path: the report.
        scan: the scan to compare.
        model: what `describe_model` gives.
        force: compares all the same, with a warning.

    Raises:
        UserError: if there are no volumes in ml, and unless `force` is given for a report of
            another patient or one whose volumes are not comparable.
    """
    report = read_prior(path)
    if not scan.voxel_size_known:
        raise UserError(f"{scan.path}: {NO_ML}")
    same = is_patient(scan, report["case"].get("patient"))
    wrong = ["is of another patient (the PatientID differs)"] if same is False else []
    wrong += [f"was made with {one}" for one in _differences(report["model"], plain(model))]
    if wrong and not force:
        raise UserError(
            f"{path}: {' and '.join(wrong)}; expected: this patient's earlier scan, segmented as this one, or --force"
        )
    notes = [Note("prior", f"The earlier report {one}: changes may not be of the disease.", "warning") for one in wrong]
    if same is None:
        text = "Whether the earlier report is of the same patient was not checked: one of the scans has no PatientID."
        notes.append(Note("prior_patient", text, "assumption"))
    return Prior(report, same, notes + _later(report, scan))


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    if any(earlier[key] != now[key] for key in _ALIKE):
        return ["other weights"]
    points = earlier["operating_point"], now["operating_point"]
    return [
        f"{key} {before}, this one with {points[1][key]}"
        for key in _POINT
        if (before := points[0].get(key, _DEFAULTS.get(key))) != points[1][key]
    ]


def _later(prior: Mapping[str, Any], scan: Scan) -> list[Note]:
    before, now = prior["case"]["facts"].get("date"), scan.facts.get("date")
    if not before or not now or before <= now:
        return []
    return [Note("prior_date", f"The earlier report is of {before}, after this examination of {now}.", "warning")]
