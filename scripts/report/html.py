"""The report of one scan for people: one HTML file that needs nothing else and runs nothing."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from xml.etree import ElementTree as ET

from ..files import write_atomic
from .profile import draw_profile
from .sections import (
    density_section,
    element,
    key_numbers,
    lesions_section,
    lungs_and_severity,
)

_TEMPLATE = Path(__file__).with_name("report_template.html")


def write_report_html(report: Mapping[str, Any], pictures: Mapping[str, Path], path: str | os.PathLike[str]) -> Path:
    """Writes the page, complete or not at all.

    Args:
        report: what `scripts.report.report.build_report` gives.
        pictures: caption to PNG file; in the order shown.
        path: the file to write.

    Returns:
        The path written.
    """
    page = render_report_html(report, pictures)
    # A file name that is no UTF-8 is shown with its odd bytes spelled out.
    content = page.encode("utf-8", errors="backslashreplace")
    return write_atomic(path, lambda temporary: temporary.write_bytes(content))


def render_report_html(report: Mapping[str, Any], pictures: Mapping[str, Path]) -> str:
    """Renders the page; arguments as for `write_report_html`."""
    case, measures = report["case"], report["measures"]
    model = {**report["model"], **report["settings"]}
    model |= {"familiarity": report["familiarity"] or "not stated", "seconds": report["timings_s"]}
    sections = {
        "banner": _banners(report),
        "key_numbers": key_numbers(measures),
        "notes": _notes(report["notes"]),
        "pictures": [_figure(caption, picture) for caption, picture in pictures.items()] or [element("p", "None.")],
        "severity": lungs_and_severity(measures),
        "density": density_section(measures["density"]),
        "lesions": lesions_section(measures["lesions"]),
        "profile": [draw_profile(measures["slice_profile"])],
        "scan": [_facts({name: fact for name, fact in case.items() if name != "facts"}), _facts(case["facts"])],
        "model": [_facts(model)],
    }
    texts = {
        "title": f"COVID-19 lung infection: {case['name']}",
        "heading": f"COVID-19 lung infection on chest CT: {case['name']}",
        "subheading": f"Outlined by a neural network, {report['created']}; to be checked by a radiologist.",
        "footer": f"{report['intended_use']} lung_infection_ct_segmentation {report['model']['version']}",
    }
    fragments = {name: "\n".join(map(_write, elements)) for name, elements in sections.items()}
    escaped = {name: escape(text) for name, text in texts.items()}
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(fragments | escaped)


def _write(one: ET.Element) -> str:
    """An element as HTML; text and attributes are escaped."""
    return ET.tostring(one, encoding="unicode", method="html")


def _banners(report: Mapping[str, Any]) -> list[ET.Element]:
    """What must not be overlooked: weights for demonstration, not a medical device."""
    use = element("div", report["intended_use"], css="banner")
    if report["demonstration"] is None:
        return [use]
    return [element("div", report["demonstration"], css="banner alarm"), use]


def _notes(notes: list[Mapping[str, str]]) -> list[ET.Element]:
    """Warnings first, then assumptions and repairs."""
    order = ("warning", "assumption", "repair")
    if not notes:
        return [element("p", "None.")]
    rows = [
        element("li", element("small", note["kind"]), element("br"), note["text"], css=note["kind"])
        for note in sorted(notes, key=lambda one: order.index(one["kind"]))
    ]
    return [element("ul", *rows, css="notes")]


def _figure(caption: str, picture: Path) -> ET.Element:
    """One picture inside of the page."""
    source = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode('ascii')}"
    image = ET.Element("img", {"src": source, "alt": "picture of the scan; its caption follows"})
    return element("figure", image, element("figcaption", caption))


def _facts(facts: Mapping[str, Any]) -> ET.Element:
    """A table of names and values."""
    rows = [
        element("tr", element("th", name.replace("_", " ")), element("td", _words(value)))
        for name, value in facts.items()
    ]
    return element("table", element("tbody", *rows), css="facts")


def _words(value: Any) -> str:
    """A value of the report as text."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name.replace('_', ' ')}: {_words(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not known" if value is None else str(value)
