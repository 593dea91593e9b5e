"""What changed between two scans, by hand calculation."""

from __future__ import annotations

import copy
import math

import pytest

from scripts.report.amounts import volumes
from scripts.report.change import describe_change
from scripts.report.change_words import of_which_scans, signed_percent
from scripts.report.html import render_report_html
from scripts.report.lesion_matching import REACH_MM, match_lesions, state
from scripts.report.lesion_pictures import LesionPicture
from scripts.report.pdf import write_report_pdf
from tests.report.test_html import Page, plain
from tests.report.test_pdf import words_of


def lesion(x, y, z, ml, side="right"):
    return {"centroid_index": [x, y, z], "volume_ml": ml, "side": side}


def scan(*lesions, box=((0, 199), (0, 99), (0, 49)), spacing=(1.0, 1.0, 4.0), cuts=(), reason=None, count=None):
    """Measures of a scan as far as matching looks at them; the lungs are 200 x 100 x 200 mm."""
    listed = {"lesions": list(lesions), "listed_count": len(lesions), "lesion_count": count or len(lesions)}
    lungs = {"box_index": [list(ends) for ends in box], "cuts": list(cuts), "reason": reason}
    return {"lesions": listed, "lungs": lungs, "voxel_size": {"spacing_mm": list(spacing)}}


def states(found):
    return [(row["state"], row["number"], row["prior_number"]) for row in found["rows"]]


def test_every_state_by_hand():
    before = scan(
        lesion(50, 50, 10, 10.0), lesion(50, 50, 30, 4.0), lesion(20, 20, 40, 2.0), lesion(150, 50, 20, 1.0, "left")
    )
    now = scan(lesion(52, 50, 10, 13.0), lesion(50, 50, 30, 3.0), lesion(25, 20, 40, 1.0), lesion(60, 80, 45, 0.5))
    found = match_lesions(before, now)
    assert states(found) == [("grown", 1, 1), ("stable", 2, 2), ("shrunk", 3, 3), ("new", 4, None), ("gone", None, 4)]
    assert [row["change_percent"] for row in found["rows"]] == [30.0, -25.0, -50.0, None, -100.0]
    assert [row["change_ml"] for row in found["rows"]] == [3.0, -1.0, -1.0, 0.5, -1.0]
    assert [row["distance_mm"] for row in found["rows"]] == [pytest.approx(2), 0, pytest.approx(5), None, None]
    assert found["counts"] == dict.fromkeys(
        ("new_count", "grown_count", "stable_count", "shrunk_count", "gone_count"), 1
    )
    assert found["complete"]


def test_boxes_are_laid_over_each_other():
    """The same lungs, shifted by 30 voxels and breathed in by a tenth, on another grid."""
    before = scan(lesion(99.5, 49.5, 24.5, 1.0), lesion(19.5, 9.5, 4.5, 1.0))
    box = ((30, 139), (5, 59), (10, 119))  # 110 x 55 x 110 voxels of 2 mm: 220 x 110 x 220 mm
    now = scan(
        lesion(30 + 54.5, 5 + 27, 10 + 54.5, 1.0), lesion(30 + 10.5, 5 + 5, 10 + 10.5, 1.0), box=box, spacing=(2.0,) * 3
    )
    found = match_lesions(before, now)
    assert states(found) == [("stable", 1, 1), ("stable", 2, 2)]
    assert [row["distance_mm"] for row in found["rows"]] == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.parametrize(("gap", "matched"), [(REACH_MM - 0.1, True), (REACH_MM + 0.1, False)])
def test_small_lesions_reach_fifteen_millimetres(gap, matched):
    found = match_lesions(scan(lesion(50, 50, 10, 1.0)), scan(lesion(50 + gap, 50, 10, 1.0)))
    assert len(found["rows"]) == (1 if matched else 2)


def test_large_lesions_reach_as_far_as_a_sphere():
    ml = 4 / 3 * math.pi * 2.5**3  # a radius of 25 mm
    for gap, rows in ((24.9, 1), (25.1, 2)):
        found = match_lesions(scan(lesion(50, 50, 10, ml)), scan(lesion(50 + gap, 50, 10, 1.0)))
        assert len(found["rows"]) == rows


def test_no_lesion_changes_sides_and_none_has_two_partners():
    crossed = match_lesions(scan(lesion(98, 50, 10, 1.0)), scan(lesion(102, 50, 10, 1.0, "left")))
    assert states(crossed) == [("new", 1, None), ("gone", None, 1)]
    parted = match_lesions(scan(lesion(50, 50, 10, 4.0)), scan(lesion(58, 50, 10, 2.0), lesion(47, 50, 10, 2.0)))
    assert states(parted) == [("new", 1, None), ("shrunk", 2, 1)]  # the nearer one


@pytest.mark.parametrize(
    ("before", "now", "matched"),
    [
        ("right", "both lungs", True),  # it has crossed the midline, or an earlier version named one side
        ("both lungs", "left", True),
        ("both lungs", "both lungs", True),
        ("both lungs", "outside of the lungs", False),
    ],
)
def test_a_lesion_of_both_lungs_is_that_of_either(before, now, matched):
    found = match_lesions(scan(lesion(98, 50, 10, 1.0, before)), scan(lesion(100, 50, 10, 1.0, now)))
    assert states(found) == ([("stable", 1, 1)] if matched else [("new", 1, None), ("gone", None, 1)])
    assert found["rows"][0]["side"] == now


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reason": "the lungs were not segmented"}, "were not segmented"),
        ({"cuts": ["The lungs go on."]}, "ends within the lungs"),
    ],
)
def test_nothing_is_matched_without_whole_lungs(changes, said):
    for pair in ((scan(), scan(**changes)), (scan(**changes), scan())):
        found = match_lesions(*pair)
        assert said in found["reason"]
        assert (found["rows"], found["counts"]) == ([], None)


def test_a_report_of_an_earlier_version_is_not_matched():
    before = scan()
    del before["lungs"]["box_index"]
    assert "segment that scan anew" in match_lesions(before, scan())["reason"]


def test_what_is_not_listed_is_said():
    assert not match_lesions(scan(lesion(50, 50, 10, 1.0), count=51), scan())["complete"]
    assert match_lesions(scan(), scan())["rows"] == []
    assert state(25.0) == "stable"


@pytest.mark.parametrize("voxel_ml", [0.0028, 0.1, 0.7 * 0.7 * 1.3 / 1000])
def test_a_quarter_more_is_stable_whatever_the_size_of_a_voxel(voxel_ml):
    changes = [volumes(4 * k * voxel_ml, 5 * k * voxel_ml)["change_percent"] for k in range(1, 300)]
    assert len(set(changes)) > 1  # not all are 25.0, in binary
    assert {state(change) for change in changes} == {"stable"}
    assert {plain(signed_percent(change)) for change in changes} == {"+25.0 %"}


def test_volumes_lungs_and_dates_by_hand(small_report):
    prior, now = small_report(), small_report(facts={"date": "2020-03-21"})
    prior["case"]["facts"]["date"] = "2020-03-01"
    prior["measures"] = copy.deepcopy(prior["measures"])
    prior["measures"]["infection"]["infection_ml"] = 0.0168  # half of 12 voxels of 0.0028 ml
    found = describe_change(prior, now["measures"], now["case"]["facts"]["date"], True)
    assert (found["days"], found["same_patient"]) == (20, True)
    assert found["infection"] == {
        "prior_ml": 0.0168,
        "ml": 0.0336,
        "change_ml": pytest.approx(0.0168),
        "change_percent": pytest.approx(100),
    }
    assert found["lungs"]["right"]["change_ml"] == 0
    assert found["lungs"]["left"]["change_percent"] is None  # of nothing
    assert found["lungs"]["right"]["infected_percent"] == pytest.approx(100 * 12 / 360, abs=1e-4)
    assert describe_change(small_report(lungs=False), now["measures"], None, None)["lungs"]["total"] is None


def test_a_lower_bound_is_no_percentage_before_or_now(small_report):
    prior, report = small_report(name="first"), small_report()
    prior["measures"] = copy.deepcopy(prior["measures"])
    prior["measures"]["infection"]["outside_lungs_percent"] = 20.0
    del prior["measures"]["lobes"]  # as in reports of earlier versions
    report["change"] = describe_change(prior, report["measures"], None, None)
    assert report["change"]["lungs"]["total"]["prior_infected_percent"] is None
    text = Page(render_report_html(report, {})).text
    assert "both lungs, percentage not stated 1.7 %" in text
    assert "right lung 0.03 ml 0.03 ml 0.00 ml 0.0 %" in text  # volumes are


@pytest.mark.parametrize("earlier", [True, False])
def test_a_change_of_what_is_shown_is_no_finding(small_report, tmp_path, earlier):
    prior, report = small_report(name="first"), small_report()
    changed = prior if earlier else report
    changed["measures"] = copy.deepcopy(changed["measures"])
    changed["measures"]["lungs"]["cuts"] = ["The lungs go on."]
    prior["measures"]["infection"]["infection_ml"] = 0.0168
    report["change"] = describe_change(prior, report["measures"], None, None)
    assert (
        report["change"]["reason"] == report["change"]["lesions"]["reason"] == "one of the scans ends within the lungs"
    )
    text = Page(render_report_html(report, {})).text
    assert "Change of the opacities not comparable one of the scans ends within the lungs" in text
    assert "The volumes are not comparable: one of the scans ends within the lungs." in text
    assert "all 0.02 ml 0.03 ml not comparable both lungs 0.03 ml 0.03 ml not comparable" in text
    assert "+0.02 ml" not in text
    assert "100.0 %" not in text.partition("Change of volumes")[2].partition("Lesions were not matched")[0]


@pytest.mark.parametrize(("day", "said"), [("02", "1 day later"), ("01", "0 days later"), ("03", "2 days later")])
def test_days_are_counted(small_report, day, said):
    prior, now = small_report(facts={"date": "2020-03-01"}), small_report()["measures"]
    assert f": 2020-03-{day}, {said}. " in of_which_scans(describe_change(prior, now, f"2020-03-{day}", None))


def test_an_earlier_day_is_no_negative_one(small_report):
    prior, now = small_report(facts={"date": "2020-03-02"}), small_report()["measures"]
    assert ", 1 day earlier. " in of_which_scans(describe_change(prior, now, "2020-03-01", None))


def test_the_page_tells_the_change(small_report):
    report = small_report()
    report["change"] = describe_change(small_report(name="first"), report["measures"], None, None)
    text = Page(render_report_html(report, {})).text
    assert "Change of the opacities 0.00 ml since first" in text
    assert "Whether both are of one patient was not checked." in text
    assert "all 0.03 ml 0.03 ml 0.00 ml 0.0 %" in text
    assert "Lesions: 0 new, 0 grown, 1 stable, 0 shrunk, 0 gone." in text
    assert "1 1 stable 0.03 ml 0.03 ml 0.0 %" in text
    assert "Change since" not in Page(render_report_html(small_report(), {})).text
    assert plain(report["change"]["lesions"]["rule"]) in text


@pytest.mark.parametrize(("count", "said"), [(10, False), (11, True)])
def test_what_is_not_printed_is_said(small_report, tmp_path, count, said):
    report = small_report()
    report["change"] = describe_change(small_report(name="first"), report["measures"], None, None)
    report["change"]["lesions"]["rows"] *= count
    words = "The first 10 are printed; the others are in the file."
    text = render_report_html(report, {})
    assert (words in Page(text).text) == (f'<span class="printed"> {words}' in text) == said
    printed = words_of(write_report_pdf(report, {}, tmp_path / "report.pdf"))
    assert (words in printed) == said
    assert printed.split().count("stable") == 10  # in rows; in the counts a comma follows


@pytest.mark.parametrize(("changed", "count", "said"), [(True, 5, False), (True, 6, True), (False, 6, False)])
def test_pictures_that_are_not_printed_are_said(small_report, changed, count, said):
    report = small_report()
    if changed:
        report["change"] = describe_change(small_report(name="first"), report["measures"], None, None)
    lesions = [LesionPicture("Lesion", {"lung window": b"png"})] * count
    text = render_report_html(report, {}, lesions)
    assert ("The first 5 are printed." in Page(text).text) == said
    assert ('class="gallery few"' in text) == changed
