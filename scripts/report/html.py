"""The report of one scan for people: one HTML file that needs nothing else and runs nothing."""

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..files import write_text
from ..messages import printable
from .change_words import FILTERS, LESION_COLUMNS, LOBE_COLUMNS, VOLUME_COLUMNS
from .lesion_pictures import LesionPicture
from .profile import draw_profile
from .wording import (
    LEGEND,
    NOT_STATED,
    PARTS,
    TITLE,
    by_whom,
    finding,
    grade,
    hu_range,
    infected,
    key_numbers,
    label,
    lung_remarks,
    no_others,
    percent,
    severity_remark,
    size,
    warnings_title,
    words,
)

TEMPLATES = FileSystemLoader(Path(__file__).with_name("templates"))
PAGES = Environment(loader=TEMPLATES, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_FILTERS = (grade, hu_range, infected, label, percent, size, by_whom, key_numbers, lung_remarks, words)
PAGES.filters |= {one.__name__: one for one in (*_FILTERS, severity_remark, warnings_title)} | FILTERS


def write_report_html(
    report: Mapping[str, Any],
    pictures: Mapping[str, Path],
    path: str | os.PathLike[str],
    lesions: Sequence[LesionPicture] = (),
) -> Path:
    """Write the page of a report, complete or not at all; return its path.

    Args:
        report: what `build_report` gives.
        pictures: caption and PNG file in order.
        path: the file to write.
        lesions: what `draw_lesions` gives.
    """
    return write_text(path, printable(render_report_html(report, pictures, lesions)))


def render_report_html(
    report: Mapping[str, Any], pictures: Mapping[str, Path], lesions: Sequence[LesionPicture] = ()
) -> str:
    """Render the page; arguments as for `write_report_html`."""
    measures, findings, case = report["measures"], report["notes"], report["case"]
    warnings = [one for one in findings if one["kind"] == "warning"]
    settings = {key: one for key, one in report["model"].items() if key != "lesion_free"} | report["settings"]
    if chosen := settings.get("model"):
        settings["model"] = f"{chosen['name']}: {chosen['reason']}"
    settings |= {"out-of-distribution score": report["familiarity"] or NOT_STATED, "seconds": report["timings_s"]}
    return PAGES.get_template("report.html").render(
        report=report,
        title=TITLE,
        parts=PARTS,
        legend=LEGEND,
        heads={"lobes": LOBE_COLUMNS, "volumes": VOLUME_COLUMNS, "lesions": LESION_COLUMNS},
        scan={name: fact for name, fact in (case | case["facts"]).items() if name not in ("facts", "patient")},
        settings=settings,
        measures=measures,
        finding=finding(measures),
        warnings=warnings,
        others=sorted((one for one in findings if one["kind"] != "warning"), key=lambda one: one["kind"]),
        no_others=no_others(bool(warnings)),
        pictures={caption: _inline(png.read_bytes()) for caption, png in pictures.items()},
        shown=[(one.caption, {name: _inline(png) for name, png in one.views.items()}) for one in lesions],
        profile=Markup(draw_profile(measures["slice_profile"])),
    )


def _inline(png: bytes) -> str:
    return base64.b64encode(png).decode("ascii")
