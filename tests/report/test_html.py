"""The page for people: self-contained, well formed, hostile names escaped, no unit that is not known."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from scripts.io.volume import Note
from scripts.report.html import render_report_html, write_report_html
from scripts.report.profile import draw_profile
from scripts.report.sections import percent, size

VOID = {"meta", "img", "br", "link", "input", "hr"}
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=")
HOSTILE = "<script>alert(1)</script>\"'&${title}"


class Page(HTMLParser):
    """Text, tags and links of a page; checks that tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts, self.links = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)


def page(report, pictures=None):
    return Page(render_report_html(report, pictures or {}))


def test_page_is_self_contained(tmp_path, small_report):
    (tmp_path / "p.png").write_bytes(PNG)
    pictures = {"axial": tmp_path / "p.png", "coronal": tmp_path / "p.png"}
    path = write_report_html(small_report(), pictures, tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    found = Page(text)
    assert len(found.links) == 2
    assert {base64.b64decode(link.removeprefix("data:image/png;base64,")) for link in found.links} == {PNG}
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert not re.search(r"url\(|@import|https?://", text)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["p.png", "report.html"]


def test_a_radiologist_finds_the_numbers(small_report):
    text = page(small_report()).text
    assert "Infection 0.03 ml in 2 of 6 slices" in text
    assert "Share of both lungs 1.7 %" in text  # 12 of 720 voxels
    assert "Share of right lung 3.3 %" in text
    assert "Share of left lung 0.0 %" in text
    assert "Severity, whole lung 1 of 5, minimal" in text
    assert "NOT the 25-point lobar CT severity score" in text
    assert "Lesions 1 largest 0.03 ml" in text
    assert "range of ground-glass opacity -700 to below -300 100.0 % 0.03 ml" in text
    assert "not a radiologist's classification" in text
    assert "1 0.03 ml 100.0 % right 3 to 4 3 to 4" in text
    assert "ab" * 32 in text


def test_banners(small_report):
    real, synthetic = page(small_report()).text, page(small_report(synthetic=True)).text
    for text in (real, synthetic):
        assert "Research use only, not a medical device." in text
    assert "DEMONSTRATION WEIGHTS" in synthetic
    assert "DEMONSTRATION" not in real


def test_hostile_names_stay_text(tmp_path, small_report):
    report = small_report(
        name=HOSTILE,
        path=Path(HOSTILE.replace("/", "")),
        facts={HOSTILE: HOSTILE},
        notes=[Note("x", HOSTILE, "warning")],
    )
    (tmp_path / "p.png").write_bytes(PNG)
    text = render_report_html(report, {HOSTILE: tmp_path / "p.png"})
    found = Page(text)
    assert "script" not in found.tags
    assert found.text.count(HOSTILE) == 7  # title, heading, note, caption, name of the case, name and value of a fact
    assert "<script" not in text


def test_a_name_that_is_no_utf8_is_written(tmp_path, small_report):
    path = write_report_html(small_report(name="a\udcff.nii"), {}, tmp_path / "report.html")
    assert "a\\udcff.nii" in path.read_text(encoding="utf-8")


def test_no_size_without_a_voxel_size(small_report):
    text = page(small_report(known=False)).text
    assert not re.search(r"\d\s*(ml|mm|cm)|\b(ml|cm²|mm2)\b", text.replace("smallest lesion mm3", ""))
    assert "Infection 12 voxels" in text
    assert "area, voxels" in text


def test_reasons_stand_where_numbers_are_missing(small_report):
    text = page(small_report(lungs=False)).text
    assert "Share of lung, severity not stated" in text
    assert "not stated: the lungs were not segmented." in text
    assert "minimal" not in text


def test_no_infection_is_said(small_report):
    text = page(small_report(infected=False)).text
    assert "Infection 0.00 ml in 0 of 6 slices" in text
    assert "Lesions 0 nothing outlined" in text
    assert "No infection was outlined." in text
    assert "Severity, whole lung 0 of 5, none" in text


def test_warnings_come_first(small_report):
    notes = [Note("a", "Mended.", "repair"), Note("b", "Noisy.", "warning"), Note("c", "Taken.", "assumption")]
    assert "warning Noisy. assumption Taken. repair Mended." in page(small_report(notes=notes)).text


def test_shares_of_a_part_are_called_so_and_not_graded(small_report):
    report = small_report()
    report["measures"]["lungs"]["cuts"] = ["The lungs go on."]
    report["measures"]["severity"] |= {"grades": None, "reason": "a part of the lungs only"}
    text = page(report).text
    assert "of the part scanned" in text
    assert "Grades are not stated: a part of the lungs only." in text


def test_small_numbers_are_not_rounded_to_nothing():
    assert [percent(share) for share in (None, 0, 0.04, 0.1, 12.34)] == [
        "not stated",
        "0.0 %",
        "below 0.1 %",
        "0.1 %",
        "12.3 %",
    ]
    sizes = [size({"a_voxels": 1, "a_ml": volume}, "a") for volume in (0.0, 0.001, 3.456, 1234.56)]
    assert sizes == ["0.00 ml", "below 0.01 ml", "3.46 ml", "1,234.6 ml"]
    assert size({"a_voxels": 1234}, "a") == "1,234 voxels"


def test_profile_is_drawn_to_scale():
    svg = draw_profile({"infection_voxels": [0, 10, 5], "lung_voxels": [20, 20, 10]})
    drawn = {path.get("class"): path.get("d") for path in svg.findall("path")}
    heights = {name: np.array(re.findall(r"V([\d.]+)H", path), float) for name, path in drawn.items() if "Z" in path}
    base = float(re.match(r"M\d+ (\d+)", drawn["lung"]).group(1))
    rise = {name: base - height for name, height in heights.items()}
    assert rise["infection"] / rise["lung"].max() == pytest.approx([0, 0.5, 0.25], abs=1e-3)
    assert rise["lung"] / rise["lung"].max() == pytest.approx([1, 1, 0.5], abs=1e-3)
    top, bottom = re.match(r"M\d+ (\d+)V(\d+)", drawn["axis"]).groups()
    assert (rise["lung"].max(), base) == (float(bottom) - float(top), float(bottom))  # the largest fills the axis
    labels = [text.text for text in svg.findall("text")]
    assert {"20", "10", "0", "area, voxels", "slice 1", "slice 3"} <= set(labels)
    in_mm = draw_profile({"infection_voxels": [3], "infection_mm2": [250.0]})
    assert {"2.5", "area, cm²"} <= {text.text for text in in_mm.findall("text")}
    empty = draw_profile({"infection_voxels": [0, 0]})
    assert "nan" not in empty.find("path").get("d")
