"""The page for people: self-contained, well formed, hostile names escaped,
no unit that is not known."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from scripts.io.volume import Note
from scripts.report.html import PAGES, render_report_html, write_report_html
from scripts.report.lesion_pictures import draw_lesions
from scripts.report.preview import describe, draw_preview
from scripts.report.profile import COLOURS, draw_profile
from scripts.report.severity import grade
from scripts.report.wording import finding, percent, size

VOID = {"meta", "img", "br", "link", "input", "hr"}
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=")
HOSTILE = "<script>alert(1)</script>\"'&${title}"


def plain(text):
    """Any white space as one space, that between a number and its unit too."""
    return " ".join(text.split())


class Page(HTMLParser):
    """Text, tags and links of a page; checks that tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.texts, self.links, self.alternatives = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = plain(" ".join(self.texts))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        self.alternatives += [dict(attrs)["alt"]] if tag == "img" else []
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)


def page(report, pictures=None, lesions=()):
    return Page(render_report_html(report, pictures or {}, lesions))


def test_page_is_self_contained(tmp_path, small_report):
    (tmp_path / "p.png").write_bytes(PNG)
    pictures = {"axial": tmp_path / "p.png", "coronal": tmp_path / "p.png"}
    path = write_report_html(small_report(), pictures, tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    found = Page(text)
    assert len(found.links) == 2
    assert {base64.b64decode(link.removeprefix("data:image/png;base64,")) for link in found.links} == {PNG}
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert not re.search(r"url\(|@import|https?://|xlink", text)
    assert "default-src 'none'" in text
    assert sorted(one.name for one in tmp_path.iterdir()) == ["p.png", "report.html"]


def test_a_radiologist_finds_the_numbers(small_report):
    text = page(small_report()).text
    assert "Opacities 0.03 ml in 2 of 6 slices" in text
    assert "Percentage of both lungs 1.7 %" in text  # 12 of 720 voxels
    assert "Percentage of right lung 3.3 %" in text
    assert "Percentage of left lung 0.0 %" in text
    assert "Severity, both lungs 1 of 5, minimal" in text
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
    assert found.alternatives[0].startswith(HOSTILE)
    assert "script" not in found.tags
    assert found.text.count(HOSTILE) == 7  # title, heading, warning, caption, case's name, a fact's name and value
    assert "<script" not in text


def test_a_name_that_is_no_utf8_is_written(tmp_path, small_report):
    path = write_report_html(small_report(name="a\udcff.nii"), {}, tmp_path / "report.html")
    assert "a\\udcff.nii" in path.read_text(encoding="utf-8")


def test_no_size_without_a_voxel_size(small_report):
    text = page(small_report(known=False)).text
    assert not re.search(r"\d\s*(ml|mm|cm)|\b(ml|cm²|mm²|mm2)\b", text.replace("smallest lesion in mm³", ""))
    assert "Opacities 12 voxels" in text
    assert "opacities, voxels" in text


def test_reasons_stand_where_numbers_are_missing(small_report):
    text = page(small_report(lungs=False)).text
    assert "Percentage of the lungs, severity not stated" in text
    assert "not stated: the lungs were not segmented." in text
    assert "minimal" not in text


def test_the_agreement_of_the_views_is_said_where_it_is_known(small_report):
    report = small_report()
    assert "Mirrored views" not in page(report).text
    report["measures"]["infection"]["views_agree_percent"] = 71.94
    text = page(report).text
    assert "Mirrored views of the scan mark the same pixels for 71.9 % of what any" in text
    assert "The border of the opacities" not in text  # the weights state no limit
    for least, said in ((71.9, "as sure as usual"), (72.0, "unsure")):
        report["model"]["operating_point"]["least_views_agree_percent"] = least
        assert f"The border of the opacities is {said}: from {least} % on is usual." in page(report).text


def test_no_number_is_rounded_across_the_limit_beside_it(small_report):
    free = {"volumes": 4, "percent_of_lungs": [0.0, 1.66, 1.66, 9.0], "ml": []}
    report = small_report(lesion_free=free)  # 12 of 720 voxels: 1.667 %, above the median
    report["measures"]["infection"] |= {"views_agree_percent": 63.16, "outside_lungs_percent": 19.96}
    report["model"]["operating_point"]["least_views_agree_percent"] = 63.2
    text = page(report).text
    assert "On this scan: 1.67 %. The limit is 1.66 %, the median" in text
    assert "the same pixels for 63.16 % of what any of them marks. The border of the opacities is unsure" in text
    assert "from 63.20 % on is usual" in text
    assert "(19.96 % of all)" in text
    assert "at least" not in text.partition("Density")[0]


def test_no_infection_is_said(small_report):
    text = page(small_report(infected=False)).text
    assert "Opacities 0.00 ml in 0 of 6 slices" in text
    assert "Lesions 0 nothing outlined" in text
    assert "Nothing was outlined." in text
    assert "Severity, both lungs 0 of 5, none" in text


def test_warnings_come_first(small_report):
    notes = [Note("a", "Mended.", "repair"), Note("b", "Noisy.", "warning"), Note("c", "Taken.", "assumption")]
    text = page(small_report(notes=notes)).text
    assert re.search(r"1 warning: .* Noisy\. Opacities of .* assumption Taken\. repair Mended\.", text)
    assert "warning" not in page(small_report()).text


def test_the_finding_is_one_sentence(small_report):
    report = small_report()
    assert plain(finding(report["measures"])) == (
        "Opacities of 0.03 ml were outlined in 2 of 6 slices: 1.7 % of the lungs, severity grade 1 of 5, minimal."
    )
    assert "12 voxels were outlined" in plain(finding(small_report(known=False)["measures"]))
    assert finding(small_report(infected=False)["measures"]) == "Nothing was outlined in 6 slices."
    assert "not stated" in finding(small_report(lungs=False)["measures"])
    report["measures"]["lungs"]["cuts"] = ["The lungs go on."]
    report["measures"]["severity"] |= {"grades": None, "reason": "a part of the lungs only"}
    assert finding(report["measures"]).endswith("of the scanned part of the lungs, severity not stated.")


def test_shares_of_a_part_are_called_so_and_not_graded(small_report):
    report = small_report()
    report["measures"]["lungs"]["cuts"] = ["The lungs go on."]
    report["measures"]["severity"] |= {"grades": None, "reason": "a part of the lungs only"}
    text = page(report).text
    assert "of the part scanned" in text
    assert "Grades are not stated: a part of the lungs only." in text


def test_a_lesion_is_shown_in_two_windows_where_it_lies(small_report):
    hu = np.full((12, 10, 6), -900, np.int16)
    hu[..., 3] = 40
    mask = np.zeros(hu.shape, np.uint8)
    mask[2:4, 3:6, 2:4] = 1
    report = small_report()
    (lesion,) = report["measures"]["lesions"]["lesions"]
    assert (lesion["box_index"], lesion["largest_slice_from_inferior"]) == ([[2, 3], [3, 5], [2, 3]], 3)
    lesion |= {"instance_number": 17, "centroid_mm": [1.75, -3.2, 12.5], "largest_slice_from_inferior": 4}
    (shown,) = draw_lesions(hu, mask, report["measures"], (0.7, 1.4, 5.0))
    assert "right, largest in slice 4 of 6 from the head, instance number 17" in shown.caption
    assert shown.caption.endswith("centre at L 1.8, A 3.2, S 12.5 mm")
    views = {name: Image.open(BytesIO(png)).convert("RGB") for name, png in shown.views.items()}
    assert {name: view.size for name, view in views.items()} == dict.fromkeys(views, (12, 20))  # rows twice as thick
    assert views["lung window"].getpixel((2, 8))[0] > 230 > 140 > views["mediastinal window"].getpixel((2, 8))[0]
    assert views["lung window"].getpixel((4, 8)) == (255, 159, 28)  # outlined beside the lesion
    found = page(report, lesions=[shown])
    assert [words for words in found.alternatives if words.startswith("Lesion 1: 0.03")] == [
        f"{shown.caption}; {name}" for name in ("lung window", "mediastinal window")
    ]
    assert found.tags.count("summary") == 1  # opens by keyboard, without a script
    report["measures"]["density"] = {"reason": "no HU"}
    assert list(draw_lesions(hu, mask, report["measures"], None)[0].views) == ["lung window"]


def test_a_picture_has_no_head_and_no_side(tmp_path, small_report):
    text = page(small_report(kind="picture", known=False, lungs=False)).text
    for words in ("head", "feet", "the patient's right", "side"):
        assert words not in text.replace("outside", "")
    image = np.full((40, 30), -700, np.int16)
    for oriented in (True, False):
        draw_preview(image, image > 0, tmp_path / f"{oriented}.png", oriented=oriented)
    assert (tmp_path / "True.png").read_bytes() != (tmp_path / "False.png").read_bytes()
    assert "feet" not in describe(np.zeros((4, 4, 1), bool), [0], None, oriented=False)


def test_what_is_marked_without_infection_stands_beside_the_volume(small_report):
    free = {"volumes": 4, "percent_of_lungs": [0.0, 1.6, 2.0, 5.4], "ml": [0.0, 0.1, 1.0, 20.0]}
    report = small_report(lesion_free=free)
    text = page(report).text
    assert "Opacities on chest CT" in text
    assert "On scans without infection at most 5.4 % median 1.8 %, 4 scans" in text
    assert "Severity, both lungs not stated within scans without infection" in text
    assert "1.7 % of the lungs, within what is marked on scans without infection." in plain(finding(report["measures"]))
    assert "The limit is 1.8 %, the median, as there are fewer than 20. An amount within it is no proof" in text
    few = page(small_report(lesion_free={**free, "percent_of_lungs": [0.0, 1.0]})).text
    assert "at most 1.0 % median 0.5 %, 2 scans" in few
    assert "severity grade 1 of 5" in few
    assert "without infection" not in page(small_report()).text


def test_small_numbers_are_not_rounded_to_nothing():
    written = [percent(number) for number in (None, 0, 0.04, 0.1, 12.34)]
    written += [size({"a_voxels": 1, "a_ml": volume}, "a") for volume in (0.0, 0.001, 3.456, 1234.56)]
    written += [size({"a_voxels": 1234}, "a")]
    assert plain("; ".join(written)) == (
        "not stated; 0.0 %; below 0.1 %; 0.1 %; 12.3 %; 0.00 ml; below 0.01 ml; 3.46 ml; 1,234.6 ml; 1,234 voxels"
    )


@pytest.mark.parametrize("limit", [5, 25, 50, 75])
@pytest.mark.parametrize("step", [-0.04, -0.004, 0.0, 0.004, 0.04])
def test_no_percentage_is_rounded_across_the_limit_of_its_grade(limit, step):
    written = percent(limit + step)
    assert grade(float(written.removesuffix("\xa0%"))) == grade(limit + step)
    assert abs(float(written.removesuffix("\xa0%")) - limit - step) <= 0.05


def test_almost_all_is_not_all():
    written = "; ".join(percent(number) for number in (4.97, 25.03, 99.94, 99.95, 99.9999, 100))
    assert plain(written) == "4.97 %; 25.03 %; 99.9 %; above 99.9 %; above 99.9 %; 100.0 %"
    assert plain(size({"a_voxels": 1}, "a")) == "1 voxel"


def draw(profile):
    """The drawing as an element, and the heights of its steps by name."""
    svg = ElementTree.fromstring(draw_profile(profile))
    shapes = {group.get("id"): group.find("path").get("d") for group in svg.iter("g") if group.find("path") is not None}
    heights = {}
    for name in ("lung", "infection"):
        if f"profile-{name}" in shapes:
            y = np.array(re.findall(r"[ML] [\d.]+ ([\d.]+)", shapes[f"profile-{name}"]), float)
            heights[name] = (y.max() - y)[1:-1:2]
    return svg, heights


def test_profile_is_drawn_to_scale():
    svg, heights = draw({"infection_voxels": [0, 10, 5], "lung_voxels": [20, 20, 10]})
    assert heights["infection"] / heights["infection"].max() == pytest.approx([0, 1, 0.5], abs=1e-3)
    assert heights["lung"] / heights["lung"].max() == pytest.approx([1, 1, 0.5], abs=1e-3)
    texts = {text.text for text in svg.iter("text")}
    assert {"opacities, voxels; largest 10", "lungs, voxels; largest 20"} <= texts
    assert {"0", "slice 1, superior (head)", "slice 3, inferior (feet)"} <= texts
    said = (
        "opacities in slices 2 to 3, largest 10 voxels in slice 2; lungs in slices 1 to 3, largest 20 voxels in slice 1"
    )
    assert svg.find("title").text == f"Area per axial slice, of 3, counted from the head: {said}"


def test_profile_is_in_square_centimetres_where_the_size_is_known():
    svg, _ = draw({"infection_voxels": [3], "infection_mm2": [400.0]})
    texts = {text.text for text in svg.iter("text")}
    assert {"0", "opacities, cm²; largest 4.0", "slice 1, inferior (feet)"} <= texts
    assert "no opacities" in draw_profile({"infection_voxels": [0, 0]})
    assert "nan" not in draw_profile({"infection_voxels": [0, 0]})


def test_profile_leaves_matplotlib_as_it_was():
    profile = {"infection_voxels": [0, 10, 5], "lung_voxels": [20, 20, 10]}
    before = dict(matplotlib.rcParams)
    with ThreadPoolExecutor(4) as pool:
        drawings = set(pool.map(draw_profile, [profile] * 8))
    assert len(drawings) == 1
    assert dict(matplotlib.rcParams) == before
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30}):
        assert draw_profile(profile) in drawings  # a user's style does not show


def test_matplotlib_is_imported_where_it_draws_and_without_pyplot():
    code = (
        "import sys; from scripts.report import html, profile; assert 'matplotlib' not in sys.modules; "
        "profile.draw_profile({'infection_voxels': [1]}); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_equal_reports_give_equal_pages(small_report):
    report = small_report()
    assert render_report_html(report, {}) == render_report_html(report, {})


STYLES = PAGES.get_template("report.css").render(report={"demonstration": None, "intended_use": "x"})
THEMES = {"light": 0, "dark": 1}  # which block of :root
SURFACES = ("paper", "panel", "note")
PAIRS = [(text, surface, 4.5) for text in ("ink", "soft") for surface in SURFACES]
PAIRS += [("alarm-ink", "alarm", 4.5)]
PAIRS += [(shape, "paper", 3) for shape in ("infection", "lung", "note-edge")]


def colours(theme):
    """Colours of a theme by name; what the dark one does not change is that of the light one."""
    found = {}
    for block in re.findall(r":root \{([^}]*)\}", STYLES)[: THEMES[theme] + 1]:
        found |= dict(re.findall(r"--([\w-]+): (#\w+)", block))
    return found


def luminance(colour):
    """Relative luminance of WCAG 2.2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = np.array([int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_print_is_light_and_breaks_no_picture_and_no_row():
    assert STYLES.count("prefers-color-scheme") == STYLES.count("@media screen and (prefers-color-scheme: dark)") == 1
    unbroken = re.findall(r"^([^{\n]+) \{[^}]*break-inside: avoid", STYLES, flags=re.MULTILINE)
    assert {"figure", "tr", ".profile", ".warnings", ".numbers > div"} <= set(unbroken)


def test_a_title_is_printed_on_the_page_of_its_first_pictures(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None or shutil.which("pdftotext") is None:
        pytest.skip("no Chromium or pdftotext on the PATH (Debian: apt install chromium poppler-utils)")
    picture = f'<img width="300" height="300" src="data:image/png;base64,{base64.b64encode(PNG).decode()}">'
    gallery = "".join(f"<details><summary>{picture}<span>{k}</span></summary></details>" for k in ("first", "second"))
    words = "Where the lesion's area is largest, with the patient's right at the left. " * 5
    parts = [  # the title comes closer to the end of its page, step by step, and passes it
        f'<div style="break-before: page; height: {height}mm"></div>'
        f'<section><h2>title</h2><p class="soft">{words}</p><div class="gallery">{gallery}</div></section>'
        for height in range(200, 275, 3)
    ]
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><style>{STYLES}</style>{''.join(parts)}")
    printed = tmp_path / "page.pdf"
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    switches += [f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={printed}"]
    subprocess.run([browser, *switches, page.as_uri()], check=True, capture_output=True, timeout=240)
    said = subprocess.run(["pdftotext", printed, "-"], check=True, capture_output=True, text=True).stdout
    pages = [text.split() for text in said.split("\f") if "title" in text]
    assert len(pages) == len(parts)
    assert all("first" in text for text in pages)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("front", "back", "least"), PAIRS)
def test_contrast_is_that_of_wcag_aa(theme, front, back, least):
    dark, light = sorted(luminance(colours(theme)[name]) for name in (front, back))
    assert (light + 0.05) / (dark + 0.05) >= least


def test_no_colour_escapes_the_contrast_test():
    rules = re.sub(r":root \{[^}]*\}|@page \{.*?\} \}|figure img \{[^}]*\}", "", STYLES, flags=re.DOTALL)
    assert not re.search(r"#[0-9a-f]{3}|rgb|opacity", rules)
    tested = {name for pair in PAIRS for name in pair[:2]}
    assert set(re.findall(r"(?:color|background): var\(--([\w-]+)\)", rules)) <= tested
    assert {name: colours("light")[name] for name in COLOURS} == COLOURS
