"""The pages: the list of the cases, one case in the viewer, its report with a link back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, FileSystemLoader

from ..errors import UserError
from ..io.output_names import REPORT
from ..messages import counted
from ..report.html import PAGES
from ..report.html import TEMPLATES as REPORT_TEMPLATES
from ..report.lesion_pictures import MEDIASTINAL_WINDOW
from ..report.preview import LUNG_WINDOW
from ..report.report import RESEARCH_USE
from ..report.wording import finding, size
from .results import CaseResult, check_source, read_mask, unchecked_remark
from .volumes import lesion_positions

WINDOWS: tuple[dict[str, Any], ...] = (
    {"key": "l", "name": "Lung", "range": LUNG_WINDOW},
    {"key": "m", "name": "Mediastinum", "range": MEDIASTINAL_WINDOW},
    {"key": "b", "name": "Bone", "range": (-500.0, 1300.0)},  # level 400, width 1800 HU
)
ALL_VALUES: dict[str, Any] = {"key": "f", "name": "All values", "range": None}
LAYOUTS = (
    {"key": "1", "name": "All", "type": "multiplanar"},
    {"key": "2", "name": "Axial", "type": "axial"},
    {"key": "3", "name": "Coronal", "type": "coronal"},
    {"key": "4", "name": "Sagittal", "type": "sagittal"},
    {"key": "5", "name": "3-D", "type": "render"},
)
KEYS = {
    "N, Shift+N": "next, previous lesion",
    "Page up, Page down": "next slice towards head, feet",
    "arrow keys": "move the crosshair in the axial plane",
    "O": "opacities on, off",
    "+, \N{MINUS SIGN}": "opacities stronger, weaker",
    "Z, Shift+Z": "zoom in, out, at the crosshair",
    "R": "back to the start",
}
"""Keys beside those of windows and layouts."""
PRIOR_KEYS = {
    "P": "show, hide the earlier scan",
    "Y": "move both crosshairs together, by the same distance",
}

_TEMPLATES = FileSystemLoader(Path(__file__).with_name("templates"))
_PAGES = PAGES.overlay(loader=ChoiceLoader([_TEMPLATES, REPORT_TEMPLATES]))


def style_sheet() -> str:
    """Render the style of the viewer's pages, in the report's colours."""
    return _PAGES.get_template("viewer.css").render()


def list_page(cases: Sequence[CaseResult]) -> str:
    """Render the list of several cases."""
    rows = [(case.name, _line(case)) for case in cases]
    return _PAGES.get_template("cases.html").render(rows=rows, use=RESEARCH_USE)


def _line(case: CaseResult) -> str:
    """Return what the list says of a case, be it why its report cannot be read."""
    try:
        return _finding(case)
    except UserError as error:
        return str(error)


def _finding(case: CaseResult) -> str:
    """Return what was found in a case; UserError where its report lacks something."""
    try:
        return finding(case.report["measures"])
    except (KeyError, TypeError) as error:
        path = case.folder / REPORT
        raise UserError(f"{path}: of an earlier version, without {error}; expected: segment the scan again") from None


def case_page(case: CaseResult, prior: CaseResult | None, listed: bool) -> str:
    """Render the viewer of one case.

    Args:
        case: what is shown.
        prior: an earlier case beside it.
        listed: whether there is a list to go back to.

    Returns:
        The page; where a scan or a mask cannot be shown, it says why in its place.
    """
    try:
        views = [_view(case, "", "")] + ([_view(prior, "../prior/", "Earlier: ")] if prior else [])
        problem = ""
    except UserError as error:
        views, problem = [], str(error)
    hounsfield = "reason" not in case.report["measures"]["density"]
    settings = {
        "views": [view["script"] for view in views],
        "windows": [*(WINDOWS if hounsfield else ()), ALL_VALUES],
        "layouts": [] if case.picture else LAYOUTS,
    }
    keys = {one["key"].upper(): f"window: {one['name']}" for one in settings["windows"]}
    keys |= {one["key"]: f"layout: {one['name']}" for one in settings["layouts"]}
    keys |= KEYS | (PRIOR_KEYS if prior else {})
    return _PAGES.get_template("case.html").render(
        case=case,
        finding=_finding(case),
        report=case.report,
        views=views,
        problem=problem,
        settings=settings,
        keys=keys,
        listed=listed,
    )


def _view(case: CaseResult, place: str, prefix: str) -> dict[str, Any]:
    """Return what the page needs of one case; UserError where it cannot be shown."""
    check_source(case)
    found, depth = case.report["measures"]["lesions"], case.report["measures"]["infection"]["slice_count"]
    lesions = found["lesions"]
    count = counted(found["lesion_count"], "lesion")
    return {
        "title": f"{prefix}{case.name}",
        "remark": unchecked_remark(case),
        "count": count if len(lesions) == found["lesion_count"] else f"The {len(lesions)} largest of {count}",
        "lesions": [_lesion(number, one, depth) for number, one in enumerate(lesions, start=1)],
        "script": {
            "scan": f"{place}scan.nii",
            "mask": f"{place}mask.nii",
            "places": lesion_positions(read_mask(case), lesions),
            "oriented": not case.picture,
        },
    }


def _lesion(number: int, lesion: Mapping[str, Any], depth: int) -> str:
    words = [f"{number}: {size(lesion, 'infection', 'volume_ml')}", *([lesion["side"]] if lesion["side"] else [])]
    return ", ".join([*words, *([f"slice {lesion['largest_slice_from_superior']}"] if depth > 1 else [])])


def report_page(case: CaseResult, linked: bool) -> str:
    """Return report.html with a link to the viewer, which only works while it runs.

    Raises:
        UserError: if there is no report.html.
    """
    path = case.folder / "report.html"
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected: the page that `segment` wrote")
    link = '<nav class="banner screen"><a href="./">See the scan slice by slice</a></nav>'
    content = path.read_text(encoding="utf-8")
    return content.replace("<body>", f"<body>\n{link}", 1) if linked else content
