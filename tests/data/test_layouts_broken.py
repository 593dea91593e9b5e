"""A broken tree gives one error that names every offender."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from scripts.data.layouts.build import build_datalist
from scripts.errors import UserError
from scripts.io.reading import read_grid


def error_lines(folder: Path) -> list[str]:
    with pytest.raises(UserError) as error:
        build_datalist([folder], folds=2)
    headline, *lines = str(error.value).split("\n  ")
    assert int(re.match(r"(\d+) problems", headline)[1]) == len(lines)
    return lines


def shifted(affine, axis, millimetres):
    result = affine.copy()
    result[axis, 3] += millimetres
    return result


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def test_every_offender_is_listed_not_only_the_first(trees):
    names = [f"coronacases_{number:03d}" for number in range(1, 10)]
    root = trees.zenodo(names, masks=("Infection",))
    images, labels = root / "COVID-19-CT-Seg_20cases", root / "Infection_Mask"
    (labels / "coronacases_001.nii.gz").unlink()
    (images / "coronacases_002.nii.gz").unlink()
    trees.volume(labels / "coronacases_003.nii.gz", (1,), shape=(6, 5, 3))
    trees.volume(labels / "coronacases_004.nii.gz", (1,), affine=shifted(trees.affine, 2, 5.0))
    trees.volume(labels / "coronacases_005.nii.gz", (1, 7, 9))
    trees.ct(images / "coronacases_006.nii.gz", shape=(6, 5, 4, 2))
    cut(images / "coronacases_007.nii.gz", 0.8)
    (images / "coronacases_008.nii.gz").write_bytes(b"no image")
    trees.volume(labels / "coronacases_009.nii", (1,))
    lines = error_lines(root)
    expected = [
        (images / "coronacases_001.nii.gz", "no label"),
        (labels / "coronacases_002.nii.gz", "without an image"),
        (labels / "coronacases_003.nii.gz", "has 6 x 5 x 3 voxels .*those of .*003.nii.gz, 6 x 5 x 4"),
        (labels / "coronacases_004.nii.gz", "5 mm off its image"),
        (labels / "coronacases_005.nii.gz", "label values 7, 9; expected: 0, 1$"),
        (images / "coronacases_006.nii.gz", r"2 volumes \(6 x 5 x 4 x 2\)"),
        (images / "coronacases_007.nii.gz", "truncated|cannot be read"),
        (images / "coronacases_008.nii.gz", "cannot be read"),
        (labels / "coronacases_009.nii.gz", "duplicate case name 'coronacases_009'"),
    ]
    assert len(lines) == len(expected)
    for path, text in expected:
        assert any(line.startswith(f"{path}: ") and re.search(text, line) for line in lines), (path, lines)


def test_an_affine_error_shows_both_affines(trees):
    root = trees.generic(("a", "b"))
    trees.volume(root / "labels" / "a.nii.gz", (1,), affine=shifted(trees.affine, 0, -3.25))
    (line,) = error_lines(root)
    assert "116.75" in line
    assert "120." in line


@pytest.mark.parametrize(("millimetres", "expected"), [(0.0, True), (0.009, True), (0.011, False), (-0.5, False)])
def test_affines_agree_within_a_hundredth_of_a_millimetre(trees, millimetres, expected):
    root = trees.generic(("a", "b"))
    trees.volume(root / "labels" / "a.nii.gz", (1,), affine=shifted(trees.affine, 1, millimetres))
    if expected:
        build_datalist([root], folds=2)
    else:
        assert len(error_lines(root)) == 1


def test_a_tiny_difference_of_spacing_counts_at_the_far_corner(trees):
    root = trees.generic(("a", "b"))
    stretched = trees.affine.copy()
    stretched[2, 2] += 0.004  # 3 voxels on: 0.012 mm
    trees.volume(root / "labels" / "a.nii.gz", (1,), affine=stretched)
    assert "0.012 mm" in error_lines(root)[0]


def test_a_label_that_is_flipped_without_saying_so_is_a_mismatch(trees):
    root = trees.generic(("a", "b"))
    trees.volume(root / "labels" / "a.nii.gz", (1,), affine=trees.affine @ np.diag([-1, 1, 1, 1.0]))
    assert "3.5 mm off" in error_lines(root)[0]


def test_the_lung_mask_is_checked_like_a_label(trees):
    root = trees.zenodo(("coronacases_001", "coronacases_002", "coronacases_003"))
    (root / "Lung_Mask" / "coronacases_001.nii.gz").unlink()
    trees.volume(root / "Lung_Mask" / "coronacases_002.nii.gz", (1, 2), shape=(5, 6, 4))
    lines = error_lines(root)
    assert len(lines) == 2
    assert "no lung mask 'coronacases_001'" in lines[0]
    assert "has 5 x 6 x 4 voxels" in lines[1]


def test_label_values_that_are_no_codes(trees):
    root = trees.generic(("a", "b", "c"))
    soft = np.zeros(trees.shape, np.float32)
    soft[0, 0, 0], soft[1, 0, 0] = 0.25, np.nan
    nib.save(nib.Nifti1Image(soft, trees.affine), root / "labels" / "a.nii.gz")
    trees.volume(root / "labels" / "b.nii.gz", (1, 2, 3))
    lines = error_lines(root)
    assert "0.25, nan" in lines[0]
    assert "label values 2, 3; expected: 0, 1, 255" in lines[1]


def test_semiseg_class_codes_and_picture_sizes(trees):
    dataset = trees.semiseg() / "Dataset" / "TrainingSet"
    trees.picture(dataset / "MultiClassInfection-Train/GT/1.png", (38, 40))
    trees.picture(dataset / "MultiClassInfection-Train/Prior/2.png", (255,), size=(9, 7))
    trees.picture(dataset / "LungInfection-Train/Doctor-label/GT/3.png", (128,))
    (dataset / "MultiClassInfection-Train/GT/4.png").unlink()
    lines = error_lines(dataset.parent)
    assert len(lines) == 4
    joined = "\n".join(lines)
    assert re.search(r"GT/1.png: label values 40; expected: 0, 1, 2, 38, 75$", joined, re.MULTILINE)
    assert re.search(r"Prior/2.png: a picture of 7 x 9; expected: a picture of 9 x 7 as .*2.jpg", joined)
    assert re.search(r"Doctor-label/GT/3.png: label values 128", joined)
    assert re.search(r"Imgs/4.jpg: no multi-class label '4'", joined)


def test_kaggle_table_and_disk_disagree(trees):
    root = trees.kaggle(("coronacases_001", "coronacases_002", "coronacases_003"))
    (root / "infection_mask" / "coronacases_001.nii").unlink()
    (root / "lung_mask" / "coronacases_002.nii").unlink()
    trees.volume(root / "ct_scans" / "coronacases_org_009.nii")
    lines = error_lines(root)
    assert [line.split(": ")[0] for line in lines] == [
        str(root / "infection_mask" / "coronacases_001.nii"),
        str(root / "lung_mask" / "coronacases_002.nii"),
        str(root / "ct_scans" / "coronacases_org_009.nii"),
    ]
    (root / "metadata.csv").write_text("ct,mask\nx,y\n")
    assert "ct_scan" in error_lines(root)[0]
    (root / "metadata.csv").write_text("")
    assert "metadata.csv: cannot be read (" in error_lines(root)[0]


def test_medseg_without_its_labels(trees):
    root = trees.medseg_part1()
    (root / "tr_mask.nii.gz").unlink()
    assert error_lines(root) == [f"{root / 'tr_mask.nii.gz'}: not there"]


def test_mosmed_mask_without_a_study_and_a_study_in_two_groups(trees):
    root = trees.mosmed()
    trees.volume(root / "masks" / "study_0999_mask.nii.gz", (1,))
    trees.ct(root / "studies" / "CT-4" / "study_0256.nii.gz")
    lines = error_lines(root)
    assert any("study_0999_mask.nii.gz: mask without an image" in line for line in lines)
    assert any("duplicate case name 'study_0256'" in line for line in lines)
    assert len(lines) == 2


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95, 0.999])
def test_a_truncated_volume_is_found_wherever_it_ends(trees, suffix, share):
    path = trees.ct(trees.folder / f"scan{suffix}", shape=(40, 40, 30))
    assert read_grid(path).shape == (40, 40, 30)
    cut(path, share)
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_grid(path)


def test_how_much_of_a_truncated_volume_is_there_is_told(trees):
    path = trees.ct(trees.folder / "scan.nii", shape=(40, 40, 30))
    cut(path, 0.5)
    with pytest.raises(UserError, match=f"truncated, {path.stat().st_size} bytes of {352 + 40 * 40 * 30 * 2}"):
        read_grid(path)


def test_gzip_in_several_members_or_with_more_behind_is_whole(trees):
    plain = trees.ct(trees.folder / "scan.nii", shape=(40, 40, 30)).read_bytes()
    path = trees.folder / "scan.nii.gz"
    path.write_bytes(gzip.compress(plain[:10000]) + gzip.compress(plain[10000:]))
    assert read_grid(path).slices == 30
    path.write_bytes(gzip.compress(plain + b"behind"))
    assert read_grid(path).slices == 30


def test_a_damaged_label_of_full_length_is_found(trees):
    root = trees.generic(("a", "b"))
    path = trees.volume(root / "labels" / "a.nii.gz", (1,), shape=trees.shape)
    content = bytearray(path.read_bytes())
    content[-8] ^= 0xFF  # the check sum
    path.write_bytes(content)
    assert f"{path}: cannot be read" in error_lines(root)[0]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_picture_is_found(trees, suffix):
    path = trees.folder / f"slice.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48), dtype=np.uint8)).save(path)
    assert read_grid(path).shape == (48, 64)
    cut(path, 0.6)
    with pytest.raises(UserError, match="cannot be read"):
        read_grid(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_grey_saved_as_colour_is_grey_and_colour_is_refused(trees, mode):
    path = trees.folder / "slice.png"
    grey = Image.fromarray(np.arange(63, dtype=np.uint8).reshape(7, 9))
    grey.convert(mode).save(path)
    assert read_grid(path).shape == (9, 7)
    if mode != "LA":
        coloured = grey.convert(mode)
        coloured.putpixel((2, 3), (10, 20, 30))
        coloured.save(path)
        with pytest.raises(UserError, match="in colour"):
            read_grid(path)


def test_an_affine_that_maps_nothing(trees):
    path = trees.folder / "scan.nii"
    header = nib.Nifti1Header()
    header.set_sform(np.diag([0, 1, 1, 1.0]), code=1)
    nib.save(nib.Nifti1Image(np.zeros(trees.shape, np.uint8), None, header), path)
    with pytest.raises(UserError, match="singular affine"):
        read_grid(path)
