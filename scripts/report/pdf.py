"""The report of one scan for people as a PDF: two A4 pages with the page's facts and words."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Flowable, Frame, KeepInFrame, PageBreak, PageTemplate

from ..files import write_atomic
from ..messages import printable
from .change_words import more_numbers, since
from .lesion_pictures import LesionPicture
from .pdf_parts import Parts
from .wording import TITLE, by_whom, finding, key_numbers, lung_remarks, no_others, severity_remark, warnings_title

_MARGIN, _FOOT = 14 * mm, 6 * mm
_WIDTH, _HEIGHT = A4[0] - 2 * _MARGIN, A4[1] - 2 * _MARGIN - _FOOT


def write_report_pdf(
    report: Mapping[str, Any],
    pictures: Mapping[str, Path],
    path: str | os.PathLike[str],
    lesions: Sequence[LesionPicture] = (),
) -> Path:
    """Write the report as a PDF of two pages, complete or not at all; return its path.

    Equal reports and pictures give equal bytes. What does not fit on a page is drawn smaller.
    Arguments as for `write_report_html`.
    """
    parts = Parts(_WIDTH)
    pages = [_first(report, pictures, parts), _second(report, lesions, parts)]
    story: list[Flowable] = []
    for page in pages:
        story += [KeepInFrame(_WIDTH, _HEIGHT, page, mode="shrink"), PageBreak()]
    return write_atomic(path, lambda temporary: _document(report, parts, temporary).build(story[:-1]))


def _document(report: Mapping[str, Any], parts: Parts, path: Path) -> BaseDocTemplate:
    title = f"{TITLE}: {printable(report['case']['name'])}"
    created = "".join(filter(str.isdigit, report["created"].partition("+")[0]))
    foot = f"{report['intended_use']} lung_infection_ct_segmentation {report['model']['version']}"

    def frame_page(canvas: Canvas, document: BaseDocTemplate) -> None:
        canvas.setDateFormatter(lambda *_: f"D:{created}Z")
        canvas.setViewerPreference("DisplayDocTitle", "true")
        canvas.setCatalogEntry("Lang", "en")
        canvas.setFont(parts.font, 7)
        canvas.setFillColor(parts.soft)
        canvas.drawString(_MARGIN, _MARGIN - 2 * mm, foot)
        canvas.drawRightString(A4[0] - _MARGIN, _MARGIN - 2 * mm, f"page {document.page} of 2")

    area = Frame(_MARGIN, _MARGIN + _FOOT, _WIDTH, _HEIGHT, 0, 0, 0, 0)
    return BaseDocTemplate(
        str(path),
        pagesize=A4,
        pageTemplates=[PageTemplate(frames=[area], onPage=frame_page)],
        title=title,
        author="lung_infection_ct_segmentation",
        subject=report["intended_use"],
        invariant=1,
    )


def _first(report: Mapping[str, Any], pictures: Mapping[str, Path], parts: Parts) -> list[Flowable]:
    measures = report["measures"]
    warnings = [one["text"] for one in report["notes"] if one["kind"] == "warning"]
    found: list[Flowable] = []
    if report["demonstration"]:
        found.append(parts.banner(report["demonstration"]))
    found += [parts.title(f"{TITLE}: {report['case']['name']}"), parts.soft_text(by_whom(report))]
    if warnings:
        found.append(parts.warnings(warnings_title(len(warnings)), warnings))
    found.append(parts.finding(finding(measures)))
    for caption, png in pictures.items():
        found += parts.picture(png, caption)
    found.append(parts.numbers([*key_numbers(measures), *more_numbers(report)]))
    found.append(parts.heading("Lungs and severity"))
    if measures["lungs"]["reason"] is None:
        found.append(parts.lungs(measures))
    found += [parts.text(one) for one in lung_remarks(report)]
    if measures["lungs"]["reason"] is None and not measures["severity"]["reason"]:
        found.append(parts.soft_text(severity_remark(measures)))
    if measures["lobes"]:
        found += [parts.heading("Lobes"), *parts.lobes(measures)]
    return found


def _second(report: Mapping[str, Any], lesions: Sequence[LesionPicture], parts: Parts) -> list[Flowable]:
    measures = report["measures"]
    found = [parts.heading("Density"), *parts.density(measures["density"]), parts.heading("Lesions")]
    found += parts.lesions(measures["lesions"], oriented=report["case"]["kind"] != "picture")
    if change := report["change"]:
        found += [parts.heading(f"Change {since(change)}"), *parts.change(change)]
    found += parts.gallery(lesions)
    found.append(parts.heading("Findings of the quality control"))
    others = [one["text"] for one in report["notes"] if one["kind"] != "warning"]
    warned = len(others) < len(report["notes"])
    found += [parts.text(one) for one in others or [no_others(warned)]]
    found += [
        parts.heading("Scan"),
        parts.facts(report["case"] | report["case"]["facts"], leave_out=("name", "facts", "patient")),
    ]
    found += [parts.heading("Model"), parts.facts(report["model"], leave_out=("preprocessing", "lesion_free"))]
    return found
