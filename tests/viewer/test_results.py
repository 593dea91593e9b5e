"""Which scan belongs to a result, and what is said where it is gone or has changed."""

from __future__ import annotations

import json
import os
import shutil
from html import unescape

import numpy as np
import pytest

from scripts.errors import UserError
from scripts.report.lesions import LesionFinder, describe_lesions
from scripts.viewer.pages import case_page
from scripts.viewer.results import check_source, find_case, find_cases, read_mask, read_volumes, unchecked_remark
from scripts.viewer.volumes import lesion_positions
from tests.viewer.conftest import Made


def test_an_output_folder_stands_for_its_cases_and_a_case_for_itself(made: Made) -> None:
    assert [case.name for case in find_cases(made.output)] == ["chest", "study", "slice"]
    (case,) = find_cases(made.output / "study")
    assert (case.name, case.source.source) == ("study", made.scans / "study")
    with pytest.raises(UserError, match="3 cases; expected: the folder of one case"):
        find_case(made.output)


@pytest.mark.parametrize("name", ["chest", "study", "slice"])
def test_scan_and_mask_lie_on_one_grid(made: Made, name: str) -> None:
    scan, mask = read_volumes(find_case(made.output / name))
    assert scan.values.shape == mask.values.shape
    np.testing.assert_allclose(scan.affine, mask.affine, atol=1e-4)
    report = json.loads((made.output / name / "report.json").read_text())
    assert np.count_nonzero(mask.values) == report["measures"]["infection"]["infection_voxels"] > 0


def test_a_lesion_is_jumped_to_within_it(made: Made) -> None:
    """On a marked voxel of its largest slice, wherever its centre lies."""
    case = find_case(made.output / "chest")
    lesions = case.report["measures"]["lesions"]["lesions"]
    mask = read_mask(case)
    inverse, depth = np.linalg.inv(mask.affine), mask.lps()[0].shape[2]
    assert len(lesions) > 1
    for lesion, position in zip(lesions, lesion_positions(mask, lesions), strict=True):
        x, y, z = np.rint(inverse @ [*position, 1])[:3].astype(int)
        assert mask.values[x, y, z] == 1
        height = (position[2] + 310.0) / 14.0  # of the slice, from the affine in conftest
        assert depth - round(height) == lesion["largest_slice_from_superior"]


def test_the_voxel_nearest_to_the_centre_is_taken(made: Made) -> None:
    """By hand: a ring around (2, 2) whose only gap is its centre."""
    mask = read_mask(find_case(made.output / "chest"))
    mask.values = np.zeros((8, 8, 3), np.uint8)
    mask.affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    mask.values[1:4, 1:4, 1] = 1
    mask.values[2, 2, 1] = 0
    lesion = {
        "infection_voxels": 8,
        "box_index": [[1, 3], [1, 3], [1, 1]],
        "largest_slice_from_inferior": 2,
        "centroid_index": [2.0, 2.4, 1.0],
    }
    assert lesion_positions(mask, [lesion]) == [[-4.0, -6.0, 5.0]]  # voxel (2, 3, 1)
    mask.values[:] = 0
    with pytest.raises(UserError, match="nothing is marked where report"):
        lesion_positions(mask, [lesion])
    mask.values = np.ones((8, 1, 1), np.uint8)  # the box lies beyond it
    with pytest.raises(UserError, match="nothing is marked where report"):
        lesion_positions(mask, [lesion])


def test_a_lesion_in_the_hollow_of_another_is_not_taken_for_it(made: Made) -> None:
    """A crescent open to the right, around a square that its centre lies in, also one slice up."""
    mask = read_mask(find_case(made.output / "chest"))
    values = np.zeros((24, 24, 4), np.uint8)
    values[2:22, 2:22, 1] = 1
    values[5:, 5:19, 1] = 0
    values[4, 12, 2] = 1
    values[9:13, 10:14, 1:3] = 1
    mask.values, mask.affine = values, np.diag([-1.0, -1.0, 1.0, 1.0])
    finder = LesionFinder()
    for z in range(4):
        finder.add(z, values[..., z] > 0, None)
    lesions = describe_lesions(finder, 4, None, lungs_known=False)["lesions"]
    assert [lesion["infection_voxels"] for lesion in lesions] == [163, 32]
    crescent, square = lesion_positions(mask, lesions)
    assert crescent == [-4.0, -12.0, 1.0]
    assert square == [-10.0, -11.0, 1.0]


def test_a_scan_that_is_gone_or_has_changed_is_named(own: Made) -> None:
    case = find_case(own.output / "chest")
    scan = own.scans / "chest.nii.gz"
    check_source(case)
    os.utime(scan, (1, 1))
    with pytest.raises(UserError, match=r"chest\.nii\.gz: has changed .* expected: the scan as it was"):
        read_volumes(case)
    scan.unlink()
    with pytest.raises(UserError, match=r"chest\.nii\.gz: no such file or folder; expected: the scan of .*chest"):
        read_volumes(case)
    (own.scans / "study" / "003").unlink()
    with pytest.raises(UserError, match="study: has changed"):
        read_volumes(find_case(own.output / "study"))


def test_a_manifest_of_an_earlier_version_is_said_to_leave_a_change_unseen(own: Made) -> None:
    assert unchecked_remark(find_case(own.output / "chest")) == ""
    manifest = json.loads((own.output / "manifest.json").read_text())
    del manifest["cases"][0]["input_stamp"]
    (own.output / "manifest.json").write_text(json.dumps(manifest))
    os.utime(own.scans / "chest.nii.gz", (1, 1))
    case = find_case(own.output / "chest")
    read_volumes(case)
    remark = unchecked_remark(case)
    assert remark.startswith(f"{own.output / 'manifest.json'}: an earlier version wrote it, without `input_stamp`")
    assert "\n" not in remark
    page = unescape(case_page(case, None, listed=False))
    assert f'<p class="banner">{remark}</p>' in page
    assert unchecked_remark(find_case(own.output / "study")) == ""


def test_a_mask_of_another_grid_is_refused(own: Made) -> None:
    shutil.copy(own.output / "study" / "infection.nii.gz", own.output / "chest" / "infection.nii.gz")
    with pytest.raises(UserError, match=r"infection\.nii\.gz: lies up to .* mm off its image"):
        read_volumes(find_case(own.output / "chest"))


def test_results_without_manifest_are_refused(own: Made) -> None:
    """Reports do not name the scan's folder; only the manifest does."""
    with pytest.raises(UserError, match="no such folder; expected: an output folder"):
        find_cases(own.output / "none")
    with pytest.raises(UserError, match="a file; expected: an output folder"):
        find_cases(own.output / "manifest.json")
    (own.output / "manifest.json").unlink()
    for folder in (own.output, own.output / "chest"):
        with pytest.raises(UserError, match=r"without .*manifest\.json, which names the scans"):
            find_cases(folder)
