"""Numbers of a scan against hand calculation, numpy and scipy."""

from __future__ import annotations

import json
import re
import tracemalloc
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from scripts.anatomy.lungs import Lungs
from scripts.anatomy.outside import PART_OF_LUNGS
from scripts.data.phantom.scan import make_phantom
from scripts.report.density import HuHistogram, density
from scripts.report.lesion_free import compare
from scripts.report.lesions import LesionFinder, describe_lesions
from scripts.report.measure import NO_HU, NO_LUNGS, measure_infection
from scripts.report.severity import severity
from scripts.report.wording import finding, key_numbers
from tests.report.test_html import plain

SPACING = (0.7, 0.8, 5.0)
VOXEL_ML = 0.0028
SHAPE = (20, 16, 10)
UNITS = r"(_ml|_mm|_mm2|_percent|_hu|_voxels|_count|_index|_of_5|_from_superior|_from_inferior)$"


def lungs_of(codes, doubts=(), cuts=()):
    return SimpleNamespace(
        slab=lambda z: codes[:, :, z],
        areas=lambda: np.stack([np.count_nonzero(codes == code, axis=(0, 1)) for code in (1, 2)], axis=1),
        box=lambda: [[int(ends.min()), int(ends.max())] for ends in np.nonzero(codes)],
        plausible=not doubts,
        doubts=list(doubts),
        cuts=list(cuts),
    )


@pytest.fixture
def case():
    """Right lung of 6 x 10 x 8, left of 5 x 10 x 7 voxels;
    three lesions and a voxel outside of the lungs."""
    codes = np.zeros(SHAPE, np.uint8)
    codes[2:8, 3:13, 1:9] = 1
    codes[11:16, 3:13, 1:8] = 2
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:6, 4:8, 2:4] = 1  # right, 24 voxels
    mask[12:14, 5:8, 4:7] = 1  # left, 18 voxels
    mask[7:10, 10, 8] = 1  # one voxel right, two outside
    mask[19, 15, 0] = 1  # outside
    hu = np.random.default_rng(0).integers(-900, 80, SHAPE).astype(np.float32)
    return mask, lungs_of(codes), hu


def take(hu):
    return lambda z: hu[:, :, z]


def numbers(value, key=""):
    """Every number of a nested report with the key that it stands under."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from numbers(one, name)
    elif isinstance(value, list):
        for one in value:
            yield from numbers(one, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value


def test_volumes_and_shares_by_hand(case):
    mask, lungs, hu = case
    found = measure_infection(take(hu), mask, SPACING, lungs)
    infection = found["infection"]
    assert (infection["infection_voxels"], infection["outside_lungs_voxels"]) == (46, 3)
    assert infection["infection_ml"] == pytest.approx(46 * VOXEL_ML)
    assert infection["outside_lungs_ml"] == pytest.approx(3 * VOXEL_ML)
    assert infection["outside_lungs_percent"] == pytest.approx(100 * 3 / 46)
    assert (infection["affected_slice_count"], infection["slice_count"], infection["present"]) == (7, 10, True)
    expected = {"right": (480, 25), "left": (350, 18), "total": (830, 43)}
    for part, (lung, infected) in expected.items():
        one = found["lungs"][part]
        assert (one["lung_voxels"], one["infection_voxels"]) == (lung, infected)
        assert one["lung_ml"] == pytest.approx(lung * VOXEL_ML)
        assert one["infected_percent"] == pytest.approx(100 * infected / lung)
    assert found["severity"]["grades"]["total"] == {"grade_of_5": 2, "category": "mild"}  # 5.2 %
    assert found["severity"]["grades"]["right"] == {"grade_of_5": 2, "category": "mild"}


def test_slice_profile_runs_from_head_to_feet(case):
    mask, lungs, hu = case
    profile = measure_infection(take(hu), mask, SPACING, lungs)["slice_profile"]
    assert profile["slice_from_superior"] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert profile["slice_from_inferior"][0] == 10
    assert profile["infection_voxels"] == [0, 3, 0, 6, 6, 6, 12, 12, 0, 1]
    assert profile["infection_mm2"][6] == pytest.approx(12 * 0.7 * 0.8)
    assert profile["below_most_superior_slice_mm"] == pytest.approx(np.arange(10) * 5)
    assert profile["lung_voxels"] == [0, 60, *7 * [110], 0]
    assert profile["lung_mm2"][1] == pytest.approx(60 * 0.56)
    assert profile["infected_percent"][1] == pytest.approx(100 / 60)
    assert profile["infected_percent"][9] is None  # no lung in that slice
    assert len({len(column) for column in profile.values()}) == 1


def test_lesions_are_described(case):
    mask, lungs, hu = case
    lesions = measure_infection(take(hu), mask, SPACING, lungs)["lesions"]
    assert [one["infection_voxels"] for one in lesions["lesions"]] == [24, 18, 3, 1]
    assert [one["side"] for one in lesions["lesions"]] == ["right", "left", "right", "outside of the lungs"]
    largest = lesions["lesions"][0]
    assert largest["centroid_index"] == [4, 5.5, 2.5]
    assert largest["volume_ml"] == lesions["largest_ml"] == pytest.approx(24 * VOXEL_ML)
    assert largest["infection_percent"] == pytest.approx(100 * 24 / 46)
    assert (largest["slices_from_superior"], largest["slices_from_inferior"]) == ([7, 8], [3, 4])


@pytest.mark.parametrize(("left", "side"), [(1, "right"), (2, "both lungs"), (10, "both lungs"), (19, "left")])
def test_a_lesion_that_crosses_the_midline_is_of_both_lungs(left, side):
    """Twenty voxels in a row; from a tenth in the lesser lung on it is of both."""
    mask, lungs = np.zeros((20, 3, 2), bool), np.full((20, 3, 2), 2, np.uint8)
    mask[:, 1, 0] = True
    lungs[: 20 - left] = 1
    found = measure_infection(take(np.zeros(mask.shape, np.int16)), mask, SPACING, lungs_of(lungs))["lesions"]
    assert [one["side"] for one in found["lesions"]] == [side]


@pytest.mark.parametrize("share", [0.03, 0.1, 0.3])
def test_lesions_are_those_of_scipy(share):
    mask = np.random.default_rng(1).random((30, 25, 20)) < share
    mask[:, :, 9] = False  # nothing touches across an empty slice
    finder = LesionFinder()
    for z in np.flatnonzero(mask.any(axis=(0, 1))):
        finder.add(int(z), mask[:, :, z], None)
    table = finder.table()
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    assert table["voxels"].tolist() == sorted(sizes.tolist(), reverse=True)
    found = np.stack([table[f"sum_{axis}"] for axis in "xyz"], axis=1) / table["voxels"][:, None]
    expected = np.array(ndimage.center_of_mass(mask, labels, range(1, count + 1)))
    assert np.allclose(sorted(map(tuple, found)), sorted(map(tuple, expected)))
    extents = sorted((part[2].start, part[2].stop - 1) for part in ndimage.find_objects(labels))
    assert sorted(zip(table["first_z"].tolist(), table["last_z"].tolist(), strict=True)) == extents


def test_corner_contact_joins_and_a_gap_parts():
    finder = LesionFinder()
    planes = np.zeros((5, 5, 6), bool)
    planes[0, 0, 0] = planes[1, 1, 1] = planes[3, 1, 2] = planes[3, 1, 4] = True
    for z in (0, 1, 2, 4):
        finder.add(z, planes[:, :, z], None)
    assert finder.table()["voxels"].tolist() == [2, 1, 1]


def test_at_most_fifty_lesions_are_listed():
    mask = np.zeros((40, 40, 1), np.uint8)
    mask[::2, ::4, 0] = 1
    lesions = measure_infection(None, mask, None, None)["lesions"]
    assert (lesions["lesion_count"], lesions["listed_count"], len(lesions["lesions"])) == (200, 50, 50)


@pytest.mark.parametrize("size", [1, 2, 7, 1000, 4001])
def test_statistics_are_those_of_numpy(size):
    hu = np.random.default_rng(size).normal(-450, 250, size).astype(np.float32)
    histogram = HuHistogram()
    for part in np.array_split(hu, 3):
        histogram.add(part)
    whole = np.rint(hu).astype(np.float64)
    found = histogram.statistics()
    shares = {"p5_hu": 5, "p25_hu": 25, "median_hu": 50, "p75_hu": 75, "p95_hu": 95}
    expected = {name: np.percentile(whole, share) for name, share in shares.items()}
    expected |= {"mean_hu": whole.mean(), "sd_hu": whole.std(), "min_hu": whole.min(), "max_hu": whole.max()}
    assert found == pytest.approx(expected)


def test_density_classes_meet_without_gap_or_overlap():
    histogram = HuHistogram()
    histogram.add(np.array([-5000, -701, -700, -301, -300, 99, 100, 40000], np.float32))
    found = density(histogram, VOXEL_ML)
    assert [one["infection_voxels"] for one in found["classes"]] == [2, 2, 2, 2]
    assert [one["infection_percent"] for one in found["classes"]] == [25, 25, 25, 25]
    assert found["classes"][0]["volume_ml"] == pytest.approx(2 * VOXEL_ML)
    assert "not a radiologist" in found["classes_name"]
    assert "doi" in found["classes_source"]


def test_only_infected_voxels_and_slices_are_measured(case):
    mask, lungs, hu = case
    asked = []

    def slices(z):
        asked.append(z)
        return hu[:, :, z]

    statistics = measure_infection(slices, mask, SPACING, lungs)["density"]["statistics"]
    assert asked == [0, 2, 3, 4, 5, 6, 8]
    assert statistics["mean_hu"] == pytest.approx(hu[mask > 0].mean())
    assert statistics["median_hu"] == np.median(hu[mask > 0])


def test_nothing_is_said_in_millimetres_where_the_voxel_size_is_unknown(case):
    mask, lungs, hu = case
    found = measure_infection(take(hu), mask, None, lungs)
    text = json.dumps(found)
    assert not re.search(r"_m[lm]|\bm[lm]\b", text)
    assert found["infection"]["infection_voxels"] == 46
    assert found["lungs"]["right"]["infected_percent"] == pytest.approx(100 * 25 / 480)
    assert "unknown" in found["voxel_size"]["reason"]


def test_no_shares_without_plausible_lungs(case):
    mask, _, hu = case
    odd = lungs_of(None, doubts=["Only one lung was found."])  # is not even looked at
    for given, reason in ((None, NO_LUNGS), (odd, "not plausible: Only one lung was found")):
        found = measure_infection(take(hu), mask, SPACING, given)
        assert found["lungs"]["reason"].endswith(reason)
        assert found["severity"]["reason"].endswith(reason)
        assert found["lungs"]["total"] is found["severity"]["grades"] is found["lesions"]["lesions"][0]["side"] is None
        assert found["infection"]["infection_ml"] == pytest.approx(46 * VOXEL_ML)
        assert not {"outside_lungs_voxels", "outside_lungs_ml"} & found["infection"].keys()
        assert not {"lung_voxels", "infected_percent"} & found["slice_profile"].keys()
    assert found["lungs"]["doubts"] == ["Only one lung was found."]


def test_a_scan_that_ends_within_the_lungs_has_shares_and_no_grade(case):
    mask, lungs, hu = case
    lungs.cuts = ["Lungs are incomplete."]
    found = measure_infection(take(hu), mask, SPACING, lungs)
    assert found["lungs"]["right"]["infected_percent"] == pytest.approx(100 * 25 / 480)
    assert found["lungs"]["cuts"] == lungs.cuts
    assert found["severity"]["grades"] is None
    assert found["severity"]["reason"] == PART_OF_LUNGS


def test_much_infection_outside_of_the_lungs_takes_grade_and_scores(case):
    mask, lungs, hu = case
    mask[9, 3:10, 0] = 1  # ten of 53 voxels outside: 18.9 %
    lobes = np.zeros(SHAPE, np.uint8)
    for code in range(1, 6):
        lobes[2:8, 3:13, code] = code
    found = measure_infection(take(hu), mask, SPACING, lungs, lobes=lobes)
    assert found["severity"]["grades"]["total"]["grade_of_5"] == 2
    assert found["lobes"]["score_of_25"] == 4  # 12 of 60 voxels in each of two lobes
    assert plain(finding(found)).endswith(": 5.2 % of the lungs, severity grade 2 of 5, mild.")
    mask[9, 10, 0] = 1  # one more: 20.4 %
    found = measure_infection(take(hu), mask, SPACING, lungs, lobes=lobes)
    assert found["severity"]["grades"] is found["lobes"]["score_of_25"] is None
    for one in ("severity", "lobes"):
        assert plain(found[one]["reason"]) == "20.4 % of the opacities lie outside of the lungs as segmented"
    assert plain(finding(found)).endswith(": at least 5.1 % of the lungs, severity not stated.")  # 5.18, rounded down
    panels = {name: plain(value) for name, value, _ in key_numbers(found)}
    assert panels["Percentage of right lung"] == "at least 5.2 %"
    assert panels["Severity, both lungs"] == "not stated"


def test_infection_that_all_lies_outside_of_the_lungs_has_no_least_share(case):
    mask, lungs, hu = case
    for z in range(mask.shape[2]):
        mask[:, :, z][lungs.slab(z) > 0] = 0
    found = measure_infection(take(hu), mask, SPACING, lungs)
    assert found["infection"]["present"]
    assert finding(found).endswith("; percentage of the lungs and severity are not stated.")
    panels = {name: plain(value) for name, value, _ in key_numbers(found)}
    assert panels["Percentage of both lungs"] == panels["Severity, both lungs"] == "not stated"


def test_values_that_are_not_hu_are_not_measured(case):
    mask, lungs, _ = case
    assert measure_infection(None, mask, SPACING, lungs)["density"] == {"reason": NO_HU}


def test_no_infection(case):
    mask, lungs, hu = case
    found = measure_infection(take(hu), mask & 0, SPACING, lungs)
    assert found["infection"]["present"] is False
    assert found["infection"]["infection_ml"] == found["lesions"]["largest_ml"] == 0
    assert found["infection"]["outside_lungs_percent"] is None
    assert (found["lesions"]["lesion_count"], found["lesions"]["lesions"]) == (0, [])
    assert (found["density"]["statistics"], found["density"]["classes"]) == (None, [])
    assert {one["category"] for one in found["severity"]["grades"].values()} == {"none"}


def test_an_absent_lung_has_no_share(case):
    mask, _, hu = case
    mask[10:] = 0  # nothing in the left lung
    right = np.zeros(SHAPE, np.uint8)
    right[2:8] = 1
    found = measure_infection(take(hu), mask, SPACING, lungs_of(right))
    assert found["lungs"]["left"]["infected_percent"] is found["severity"]["grades"]["left"] is None


def test_the_grade_says_what_it_is_not():
    found = severity({"total": 30.0, "right": 80.0, "left": 0.0}, None)
    assert [one["grade_of_5"] for one in found["grades"].values()] == [3, 5, 0]
    assert "NOT the 25-point" in found["caution"]
    assert "2020;295:715-721" in found["source"]


def test_every_number_has_its_unit_in_its_key(case):
    mask, lungs, hu = case
    found = list(numbers(measure_infection(take(hu), mask, SPACING, lungs)))
    assert len(found) > 100
    without = {key for key, _ in found if not re.search(UNITS, key)} - {"from_hu", "below_hu"}
    assert without == set()


@pytest.mark.parametrize("depth", [1, 2])
def test_few_slices(depth):
    mask = np.ones((4, 4, depth), np.uint8)
    found = measure_infection(take(np.zeros(mask.shape, np.float32)), mask, SPACING, lungs_of(mask))
    assert found["lungs"]["right"]["infected_percent"] == 100
    assert found["lesions"]["lesion_count"] == 1


def test_a_mask_that_is_no_volume_is_refused():
    with pytest.raises(ValueError, match=r"\(X, Y, Z\).*\(4, 4\)"):
        measure_infection(None, np.zeros((4, 4)), None, None)


def test_lungs_of_the_anatomy_room_fit():
    phantom = make_phantom(0, (64, 64, 20), (5, 5, 12))
    sides = np.array([0, 2, 1], np.uint8)[phantom.lungs]
    lungs = Lungs.from_mask(sides, (5, 5, 12))
    assert lungs.plausible, lungs.doubts
    found = measure_infection(lambda z: phantom.image[:, :, z].astype(np.float32), phantom.infection, (5, 5, 12), lungs)
    assert found["lungs"]["right"]["lung_ml"] == pytest.approx(lungs.right_ml)
    assert found["lungs"]["left"]["lung_ml"] == pytest.approx(lungs.left_ml)
    assert found["lungs"]["total"]["infection_voxels"] == np.count_nonzero(phantom.infection)


def test_memory_is_that_of_a_few_slices():
    mask = np.zeros((200, 200, 200), np.uint8, order="F")
    mask[40:160, 40:160, 20:180] = 1
    codes = np.ones((200, 200), np.uint8)
    areas = np.full((200, 2), codes.size)
    given = {"slab": lambda z: codes, "areas": lambda: areas, "box": lambda: None}
    lungs = SimpleNamespace(**given, plausible=True, doubts=[], cuts=[])
    tracemalloc.start()
    measure_infection(lambda z: np.zeros((200, 200), np.float32), mask, SPACING, lungs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < mask.nbytes / 2


@pytest.mark.real_data
def test_radiologists_masks_against_whole_volume_oracles(lung_ct_data):
    folder = lung_ct_data / "covid19_ct_seg"
    path = sorted((folder / "Infection_Mask").glob("*.nii.gz"))[0]
    load = [np.asanyarray(nib.load(one).dataobj) for one in (path, folder / "COVID-19-CT-Seg_20cases" / path.name)]
    mask, hu = load[0] > 0, load[1]
    found = measure_infection(lambda z: hu[:, :, z].astype(np.float32), mask, None, None)
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert found["lesions"]["lesion_count"] == count
    assert found["lesions"]["largest_voxels"] == np.bincount(labels.ravel())[1:].max()
    assert found["density"]["statistics"]["median_hu"] == np.median(hu[mask])
    assert found["density"]["statistics"]["sd_hu"] == pytest.approx(np.std(hu[mask], dtype=np.float64))
    summary = describe_lesions(LesionFinder(), 1, None, lungs_known=False)
    assert summary["lesion_count"] == 0


FREE = {"volumes": 4, "percent_of_lungs": [0.0, 2.0, 3.0, 6.0], "ml": [0.0, 20.0, 30.0, 40.0]}


@pytest.mark.parametrize(
    ("stated", "unit", "within"),
    [
        (FREE, "percent_of_lungs", True),
        ({**FREE, "percent_of_lungs": [0.0, 1.0, 1.5, 10.0]}, "percent_of_lungs", False),  # above the median of few
        ({**FREE, "percent_of_lungs": [0.0] * 10 + [1.7] * 10}, "percent_of_lungs", True),  # the percentile of many
        ({**FREE, "percent_of_lungs": [0.0] * 19 + [1.7]}, "percent_of_lungs", False),
        ({**FREE, "percent_of_lungs": []}, "ml", True),
        ({**FREE, "percent_of_lungs": [], "ml": []}, None, None),
        (None, None, None),
    ],
)
def test_an_amount_that_is_marked_on_scans_without_infection_gets_no_grade(small_report, stated, unit, within):
    found = small_report(lesion_free=stated)["measures"]  # 12 of 720 voxels of the lungs
    compared, grades = found["lesion_free"], found["severity"]["grades"]
    assert (compared and compared["unit"], compared and compared["within"]) == (unit, within)
    assert (grades is None) == bool(within)
    if within:
        assert "without infection" in found["severity"]["reason"]
        assert compared["largest"] == stated[unit][-1]
        assert compared["median"] <= compared["limit"] <= compared["largest"]
    if unit == "percent_of_lungs":
        assert compared["value"] == pytest.approx(100 * 12 / 720, rel=1e-4)


def test_marks_outside_of_the_lungs_count_against_scans_without_infection():
    free = compare(FREE, {"present": True, "infection_voxels": 70, "outside_lungs_voxels": 65}, 1000)
    assert (free["value"], free["within"]) == (7.0, False)


def test_nothing_outlined_is_grade_0_whatever_scans_without_infection_say(small_report):
    found = small_report(infected=False, lesion_free=FREE)["measures"]
    assert found["lesion_free"]["within"] is False
    assert found["severity"]["grades"]["total"] == {"grade_of_5": 0, "category": "none"}
