"""The preview picture: what is drawn where, read back from the pixels."""

from __future__ import annotations

import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from scripts.errors import UserError
from scripts.report.preview import choose_slices, describe, draw_preview, preview_files

ORANGE, BLUE = (0xFF, 0x9F, 0x1C), (0x2E, 0xC4, 0xFF)
LEGEND = 60  # rows at the top that hold title and legend


def pixels(path, colour):
    """Rows and columns of the pixels of about one colour, below the legend."""
    picture = np.rint(imread(path)[LEGEND:, :, :3] * 255).astype(int)
    return np.argwhere(np.abs(picture - colour).max(axis=2) < 40) + np.array([LEGEND, 0])


def box(shape, *ranges):
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(*one) for one in ranges)] = 1
    return mask


def air(shape):
    return np.full(shape, -1000, np.int16)


def test_slice_is_shown_the_radiological_way(tmp_path):
    left_anterior = box((60, 60), (40, 50), (8, 18))
    path = draw_preview(air((60, 60)), left_anterior, tmp_path / "p.png")
    height, width = imread(path).shape[:2]
    row, column = pixels(path, ORANGE).mean(axis=0)
    assert column > 0.55 * width  # the patient's left is at the right
    assert row < 0.45 * height  # anterior is at the top


def test_image_and_outline_lie_on_each_other(tmp_path):
    mask = box((50, 40), (5, 15), (20, 36))
    image = air((50, 40))
    image[mask > 0] = 500
    path = draw_preview(image, mask, tmp_path / "p.png")
    outline = pixels(path, ORANGE)
    (top, left), (bottom, right) = outline.min(axis=0), outline.max(axis=0)
    picture = imread(path)[..., :3].min(axis=2)
    assert picture[top + 12 : bottom - 12, left + 12 : right - 12].min() > 0.9
    assert picture[top + 12 : bottom - 12, left - 30 : left - 12].max() < 0.5


def test_proportions_are_true(tmp_path):
    path = draw_preview(air((40, 40)), box((40, 40), (10, 30), (15, 25)), tmp_path / "p.png", spacing=(1, 3, 1))
    height, width = np.ptp(pixels(path, ORANGE), axis=0)
    assert height / width == pytest.approx(10 * 3 / 20, rel=0.05)


@pytest.mark.parametrize("shape", [(40, 40), (40, 40, 12)])
@pytest.mark.parametrize("letter", ["W", "\u80ba", "i"])
def test_a_long_title_stays_within_the_picture(tmp_path, shape, letter):
    path = draw_preview(air(shape), box(shape, (0, 0)), tmp_path / "p.png", title=letter * 240 + "_end")
    drawn = np.flatnonzero(imread(path)[:LEGEND, :, :3].max(axis=(0, 2)) > 0.5)
    assert drawn.min() > 0
    assert drawn.max() < imread(path).shape[1] - 1


@pytest.mark.filterwarnings("error")  # of glyphs that the font lacks
def test_titles_that_the_font_lacks_are_told_apart(tmp_path):
    drawn = [draw_preview(air((9, 9)), box((9, 9)), tmp_path / f"{k}.png", title=t) for k, t in enumerate("肺气")]
    one, other = (path.read_bytes() for path in drawn)
    assert one != other


def test_coronal_and_sagittal_views(tmp_path):
    superior_right_posterior = box((60, 50, 20), (5, 20), (35, 45), (15, 18))
    path = draw_preview(air((60, 50, 20)), superior_right_posterior, tmp_path / "p.png", spacing=(1, 1, 3))
    height, width = imread(path).shape[:2]
    marks = pixels(path, ORANGE)
    marks = marks[marks[:, 1] > 0.75 * width]  # the last of four columns
    coronal, sagittal = marks[marks[:, 0] < height / 2], marks[marks[:, 0] > height / 2]
    centre = 0.875 * width
    assert coronal[:, 1].mean() < centre  # right is at the left
    assert sagittal[:, 1].mean() > centre  # posterior is at the right
    assert coronal[:, 0].mean() < 0.25 * height  # superior is at the top
    assert sagittal[:, 0].mean() < 0.75 * height
    assert np.ptp(coronal[:, 0]) / np.ptp(coronal[:, 1]) == pytest.approx(3 * 3 / 15, rel=0.1)


def test_reference_gets_a_colour_of_its_own(tmp_path):
    mask, truth = box((40, 40), (5, 10), (5, 10)), box((40, 40), (25, 35), (25, 35))
    alone = draw_preview(air((40, 40)), mask, tmp_path / "alone.png")
    both = draw_preview(air((40, 40)), mask, tmp_path / "both.png", truth=truth)
    assert len(pixels(alone, BLUE)) == 0
    assert len(pixels(both, ORANGE)) == pytest.approx(len(pixels(alone, ORANGE)), rel=0.1)
    assert np.all(pixels(both, BLUE).mean(axis=0) > pixels(both, ORANGE).mean(axis=0))


@pytest.mark.parametrize("shape", [(30, 30, 5), (30, 30, 1), (30, 30), (30, 20, 2), (3, 2, 1)])
@pytest.mark.parametrize("infected", [True, False])
def test_every_size_is_drawn(tmp_path, shape, infected):
    mask = np.zeros(shape, bool)
    mask[0, 0] = infected
    path = draw_preview(air(shape), mask, tmp_path / "p.png", title="a $b_1 case")
    assert (len(pixels(path, ORANGE)) > 0) == infected
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]


def test_shapes_must_agree(tmp_path):
    with pytest.raises(ValueError, match="share one"):
        draw_preview(air((4, 4, 4)), air((4, 4, 5)), tmp_path / "p.png")
    with pytest.raises(ValueError, match="share one"):
        draw_preview(air((4,)), air((4,)), tmp_path / "p.png")
    assert list(tmp_path.iterdir()) == []


def test_chosen_slices_are_the_most_affected_and_spread():
    mask = np.zeros((10, 10, 100), bool)
    for k in range(20, 80):
        mask[: 1 + k // 10, 0, k] = True
    chosen = choose_slices(mask, 6)
    assert chosen[0] == 70  # the first of the largest
    assert len(chosen) <= 6
    assert np.diff(chosen).max() <= -10
    one = np.zeros((4, 4, 9), bool)
    one[1, 1, 3] = True
    assert choose_slices(one, 6) == [3]
    assert choose_slices(np.zeros((4, 4, 1), bool), 6) == [0]


def test_description_by_hand():
    mask = np.zeros((10, 10, 10), bool)
    mask[:5, :5, 2:4] = True
    text = describe(mask, [3, 2], (2, 2, 5))
    assert text.startswith("opacities in 2 of 10 slices, 5.0\xa0% of the scan's voxels, 1.00\xa0ml\n")
    assert text.endswith("counted from the feet: 4, 3")
    assert "voxel size unknown" in describe(mask, [3], None)
    assert "\xa0ml" not in describe(mask, [3], None)
    mask[0, 0, 7] = True  # a hundredth of its slice
    assert describe(mask, [3], None, 0.02).startswith("opacities in 2 of 10 slices, 5.1\xa0%")
    assert describe(mask, [3], None, 0.01).startswith("opacities in 3 of 10 slices")
    assert describe(mask, [3], None, 0.5).startswith("opacities in 0 of 10 slices, 5.1\xa0%")
    few = np.zeros((100, 100, 100), bool)
    few[0, 0, 0] = True
    assert "slices, below 0.1\xa0% of the scan's voxels, below 0.01\xa0ml" in describe(few, [0], (1, 1, 1))
    assert ", above 99.9\xa0% of the scan's voxels" in describe(~few, [0], None)
    assert describe(mask & False, [5], (1, 1, 1)).startswith("nothing outlined in 10 slices\n")


@pytest.fixture
def stored(turned, tmp_path):
    """Writes one scan in any orientation and gives its path."""
    rng = np.random.default_rng(0)
    scan = (rng.integers(-1000, 200, (20, 24, 9))).astype(np.int16)
    mask = box(scan.shape, (3, 9), (4, 10), (2, 6))

    def write(name, orientation, array=scan, shift=0.0):
        affine = np.diag([-1.5, -2.0, 4.0, 1])
        affine[:3, 3] = 10 + shift
        nib.save(turned(nib.Nifti1Image(array, affine), orientation), tmp_path / name)
        return tmp_path / name

    return write, scan, mask


@pytest.mark.parametrize("orientation", ["RAI", "PIR", "SLA"])
def test_any_orientation_gives_the_same_picture(stored, tmp_path, orientation):
    write, scan, mask = stored
    expected = draw_preview(scan, mask, tmp_path / "lps.png", mask, spacing=(1.5, 2, 4), title="scan")
    (tmp_path / "a").mkdir()
    paths = [write(f"a/{name}.nii.gz", orientation, array) for name, array in (("scan", scan), ("mask", mask))]
    truth = write("truth.nii", "LPS", mask)
    png = preview_files(*paths, tmp_path / "other.png", truth)
    assert png.read_bytes() == expected.read_bytes()


def test_files_that_do_not_fit_are_named(stored, tmp_path):
    write, scan, mask = stored
    good, png = write("scan.nii.gz", "LPS"), tmp_path / "p.png"
    small = write("small.nii.gz", "LPS", mask[:, :-1])
    with pytest.raises(UserError, match=r"small.nii.gz: has 20 x 23 x 9 voxels.*20 x 24 x 9"):
        preview_files(good, small, png)
    with pytest.raises(UserError, match=r"shifted.nii.gz: lies up to 3.464 mm off"):
        preview_files(good, write("shifted.nii.gz", "LPS", mask, shift=2), png)
    preview_files(good, write("rounded.nii.gz", "LPS", mask, shift=0.01), tmp_path / "rounded.png")
    with pytest.raises(UserError, match=r"four.nii.gz: .*2 volumes"):
        preview_files(write("four.nii.gz", "LPS", np.stack([scan, scan], -1)), good, png)
    assert not png.exists()


def test_unreadable_files_are_named(stored, tmp_path):
    write, _, _ = stored
    good, png = write("scan.nii.gz", "LPS"), tmp_path / "p.png"
    (tmp_path / "cut.nii.gz").write_bytes(good.read_bytes()[:-2000])
    (tmp_path / "text.nii.gz").write_text("no picture")
    (tmp_path / "picture.jpg").write_text("no picture")
    for name in ("cut.nii.gz", "text.nii.gz", "picture.jpg", "absent.nii.gz"):
        with pytest.raises(UserError, match=f"{name}: .*; expected: "):
            preview_files(good, tmp_path / name, png)
    assert not png.exists()


def test_nothing_is_overwritten_unasked(stored, tmp_path):
    write, _, mask = stored
    paths = write("scan.nii.gz", "LPS"), write("mask.nii.gz", "LPS", mask)
    png = tmp_path / "p.png"
    png.write_text("mine")
    with pytest.raises(UserError, match="exists"):
        preview_files(*paths, png)
    assert png.read_text() == "mine"
    preview_files(*paths, png, overwrite=True)
    assert imread(png).ndim == 3
    with pytest.raises(UserError, match=r"p.txt.*\.png"):
        preview_files(*paths, tmp_path / "p.txt")


def test_memory_does_not_grow_with_the_scan(tmp_path):
    peaks = []
    for depth in (20, 400):
        mask = np.zeros((256, 256, depth), np.uint8, order="F")
        mask[40:80, 40:80, 5:15] = 1
        image = np.zeros(mask.shape, np.int16, order="F")
        tracemalloc.start()
        draw_preview(image, mask, tmp_path / "p.png")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 0.5 * mask.nbytes


def test_any_value_above_zero_is_infection(tmp_path):
    mask = box((30, 30, 5), (5, 15), (20, 26), (1, 3))
    expected = draw_preview(air(mask.shape), mask, tmp_path / "1.png").read_bytes()
    for other in (mask > 0, mask * np.uint8(7), mask.astype(np.int16) - 1 + mask, mask * 0.5):
        assert draw_preview(air(mask.shape), other, tmp_path / "other.png").read_bytes() == expected
