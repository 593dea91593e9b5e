"""The PDF: two pages whatever it holds, the page's words, equal bytes for equal reports."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.report.html import render_report_html
from scripts.report.lesion_pictures import draw_lesions
from scripts.report.wording import PARTS, certain, finding, key_numbers, lung_remarks

pytest.importorskip("reportlab", reason="the extra `dicom` is not installed")

from scripts.report.pdf import write_report_pdf
from scripts.report.pdf_parts import Parts

HOSTILE = "<b>&amp;</para> Müller \udcff"
WARNING = {"code": "x", "kind": "warning", "text": "What is found here is long. " * 20}


@pytest.fixture
def write(tmp_path: Path):
    """Writes the PDF of a report with pictures; returns its path."""
    preview = tmp_path / "preview.png"
    Image.fromarray(np.zeros((93, 168, 3), np.uint8)).save(preview)

    def write(report, lesions=(), name="report.pdf"):
        return write_report_pdf(report, {"Most affected slices": preview}, tmp_path / name, lesions)

    return write


def words_of(path: Path) -> str:
    """The text, any white space as one space."""
    if not shutil.which("pdftotext"):
        pytest.skip("no pdftotext on the PATH (Debian: apt install poppler-utils)")
    said = subprocess.run(["pdftotext", str(path), "-"], capture_output=True, text=True, check=True).stdout
    return " ".join(said.split())


def pages(path: Path) -> int:
    return len(re.findall(rb"/Type /Page\b(?!s)", path.read_bytes()))


def test_words_are_those_of_the_page(write, small_report):
    report = small_report()
    text = words_of(write(report))
    measures = report["measures"]
    said = [finding(measures), *lung_remarks(report), report["intended_use"], report["model"]["weights_sha256"]]
    said += [one for number in key_numbers(measures) for one in number]
    assert [one for one in said if " ".join(one.split()) not in text] == []


def test_a_lower_bound_is_called_one_in_every_table(write, small_report):
    report = small_report()
    report["measures"] = measures = copy.deepcopy(report["measures"])
    lobe = {"lobe_ml": 120.0, "infection_ml": 12.048, "infected_percent": 10.04, "score_of_5": None}
    measures["lobes"] = {"parts": {"left_upper": lobe}, "score_of_25": None, "reason": "much lies outside"}
    rows = "both lungs 2.02 ml 0.03 ml {}1.{} %", "120.0 ml 12.0 ml {}10.0 %"
    for outside, least, tenth in ((19.9, "", 7), (20.0, "at least ", 6)):
        measures["infection"]["outside_lungs_percent"] = outside
        page = " ".join(re.sub("<[^>]*>", " ", render_report_html(report, {})).split())
        for text in (page, words_of(write(report))):
            assert [row for row in rows if row.format(least, tenth) not in text] == []
    assert [certain(measures)["lungs"][part]["infected_percent"] for part in PARTS] == [None] * 3
    assert certain(measures)["lobes"]["parts"]["left_upper"] == {**lobe, "infected_percent": None}


@pytest.mark.parametrize(("notes", "said"), [([], "None."), ([WARNING], "No others than the warnings above.")])
def test_warnings_are_findings_too(small_report, notes, said, tmp_path):
    report = small_report() | {"notes": notes}
    texts = []

    class Shown(Parts):
        def text(self, text):
            texts.append(text)
            return super().text(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scripts.report.pdf.Parts", Shown)
        write_report_pdf(report, {}, tmp_path / "report.pdf")
    assert [one for one in texts if one in ("None.", "No others than the warnings above.")] == [said]
    assert f"<li>{said}</li>" in render_report_html(report, {})


@pytest.mark.parametrize("changes", [{}, {"known": False}, {"infected": False}, {"lungs": False}, {"synthetic": True}])
def test_two_pages_of_equal_bytes(write, small_report, changes):
    report = small_report(**changes)
    one, other = write(report), write(report, name="again.pdf")
    assert one.read_bytes() == other.read_bytes()
    assert pages(one) == 2
    assert b"(Opacities on chest CT: case_1)" in one.read_bytes()
    assert b"/DisplayDocTitle true" in one.read_bytes()


def test_much_is_drawn_smaller_and_names_are_no_markup(write, small_report):
    report = small_report()
    report["notes"] = [WARNING] * 30 + [WARNING | {"kind": "repair"}] * 30
    report["case"]["name"] = HOSTILE
    lesions = draw_lesions(np.zeros((12, 10, 6), np.int16), np.ones((12, 10, 6)), report["measures"], None)
    path = write(report, lesions * 12)
    assert pages(path) == 2
    text = words_of(path)
    assert text.count("What is found here is long") == 60 * 20
    assert "<b>&amp;</para> Müller" in text


def test_names_that_the_font_lacks_or_would_turn_round_are_spelled_out(write, small_report):
    report = small_report(name="\u80ba 1 \u05d0\u05d1 \u202etxt e\u0301")
    assert r"\u80ba 1 \u05d0\u05d1 \u202etxt é" in words_of(write(report))
