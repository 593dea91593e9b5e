"""One reader for all entries: what a header says of itself is judged by the file,
and everywhere alike."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scripts.errors import UserError
from scripts.io.reading import read_grid, read_scan
from scripts.pipeline.discovery import find_scans
from scripts.pipeline.inputs import expand_inputs
from scripts.transforms.preprocessing import load_image

SHAPE = (24, 20, 7)
AFFINE = np.array([[-7.0, 0, 0, 90], [0, -8.0, 0, 110], [0, 0, 5.0, -200], [0, 0, 0, 1]])
EXTENSION = struct.pack("<ii", 32, 6) + b"written by a test".ljust(24)


def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 200, SHAPE).astype(np.int16)


def write(path: Path, offset: float, between: bytes = bytes(4), behind: bytes = b"", **fields: object) -> Path:
    """A NIfTI-1 file of header, `between`, voxels and `behind`, with a vox_offset of one's own."""
    header = nib.Nifti1Image(voxels(), AFFINE).header
    header.set_sform(AFFINE, 1)
    header.set_qform(AFFINE, 1)
    header["magic"], header["vox_offset"] = b"n+1", offset
    for field, value in fields.items():
        header[field] = value
    content = header.binaryblock + between + voxels().tobytes(order="F") + behind
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def through_monai(path: Path) -> np.ndarray:
    """The scan as training, evaluation, `run inference` and MONAI Label load it,
    turned back to its stored axes."""
    item = {"image": str(path)}
    for step in load_image()[:2]:
        item = step(item)
    return item["image"]  # type: ignore[return-value]


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize(
    ("offset", "between"),
    [
        (0, bytes(4)),
        (16, bytes(4)),
        (348, b""),
        (357, bytes(9)),
        (0, b"\1\0\0\0" + EXTENSION),
        (352, b"\1\0\0\0" + EXTENSION + EXTENSION),
    ],
)
def test_the_voxels_are_found_by_the_size_of_the_file(tmp_path, ending, offset, between):
    path = write(tmp_path / f"scan.{ending}", offset, between)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.values, voxels())
    np.testing.assert_array_equal(through_monai(path)[0].numpy(), voxels())
    assert read_grid(path).shape == SHAPE
    told = [note for note in scan.notes if note.code == "voxel_offset"]
    assert bool(told) == (offset != 348 + len(between))
    assert not told or f"byte {348 + len(between)}" in told[0].text


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize(
    ("offset", "behind", "found"), [(0, b"more", "vox_offset is 0"), (400, b"", "truncated"), (0, None, "truncated")]
)
def test_what_cannot_be_is_refused_by_every_entry(tmp_path, ending, offset, behind, found):
    path = write(tmp_path / f"scan.{ending}", offset, behind=behind or b"")
    if offset == 400:  # the size fits neither 400 nor 352
        write(path, offset, bytes(20))
    if behind is None:
        content = path.read_bytes() if ending == "nii" else gzip.decompress(path.read_bytes())
        path.write_bytes(content[:-8] if ending == "nii" else gzip.compress(content[:-8]))
    for read in (read_scan, through_monai, read_grid):
        with pytest.raises(UserError, match="scan") as caught:
            read(path)
        assert found in str(caught.value)


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("offset", [np.nan, np.inf, -np.inf, 1e30, -1, 100_000])
def test_an_offset_that_is_no_byte_of_the_file_is_refused_by_every_entry(tmp_path, ending, offset):
    path = write(tmp_path / f"scan.{ending}", offset)
    for read in (read_scan, through_monai, read_grid):
        with pytest.raises(UserError) as caught:
            read(path)
        assert f"vox_offset is {offset:g}; expected: 352, where by its size the voxels start" in str(caught.value)


def test_bytes_behind_the_voxels_warn(tmp_path):
    scan = read_scan(write(tmp_path / "scan.nii.gz", 352, behind=b"more"))
    assert [(note.code, note.kind) for note in scan.notes if note.code == "bytes_behind"] == [
        ("bytes_behind", "warning")
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"sform_code": 0, "quatern_b": 0, "quatern_c": 0, "quatern_d": 1.0000004},
        {"srow_x": 0, "srow_y": 0, "srow_z": 0},
        {"quatern_b": np.nan},
        {"dim": [5, *SHAPE, 1, 1, 1, 1]},
    ],
)
def test_every_entry_places_the_scan_alike(tmp_path, fields):
    path = write(tmp_path / "scan.nii.gz", 352, **fields)
    image = through_monai(path)
    for affine in (read_scan(path).affine, read_grid(path).affine, image.affine.numpy()):
        corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(SHAPE) - 1)
        placed = [corners @ one[:3, :3].T + one[:3, 3] for one in (affine, AFFINE)]
        np.testing.assert_allclose(*placed, atol=0.01)
    assert tuple(image.shape[1:]) == SHAPE == read_grid(path).shape


def test_a_quaternion_far_from_a_rotation_is_refused_by_every_entry(tmp_path):
    path = write(tmp_path / "scan.nii.gz", 352, sform_code=0, quatern_b=0.9, quatern_c=0.9)
    for read in (read_scan, through_monai, read_grid):
        with pytest.raises(UserError, match="scan") as caught:
            read(path)
        assert "qform without a rotation" in str(caught.value)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """A folder with one case of its own, links to two elsewhere, one of them twice,
    and two loops."""
    folder = tmp_path / "cohort"
    write(folder / "case_a" / "a.nii.gz", 352)
    for name in "bc":
        write(tmp_path / "store" / f"case_{name}" / f"{name}.NII.GZ", 352)
        (folder / f"case_{name}").symlink_to(tmp_path / "store" / f"case_{name}")
    (folder / "again").symlink_to(tmp_path / "store" / "case_b")
    (folder / "case_a" / "loop").symlink_to(folder)
    (tmp_path / "store" / "case_c" / "up").symlink_to(tmp_path / "store")
    return folder


def test_linked_folders_are_followed_once_and_loops_end(cohort):
    found = [sorted(Path(scan["image"]).name for scan in find_scans(str(cohort)))]
    found.append(sorted(case.source.name for case in expand_inputs([cohort], cohort.parent / "out")))
    assert found == [["a.nii.gz", "b.NII.GZ", "c.NII.GZ"]] * 2


def test_what_is_passed_over_is_told(cohort, caplog):
    (cohort / "d.nii.gz").symlink_to("nowhere.nii.gz")
    (cohort / "case_a" / "._a.nii.gz").write_bytes(b"macOS")
    for search in (lambda: find_scans(str(cohort)), lambda: expand_inputs([cohort], cohort.parent / "out")):
        caplog.clear()
        assert len(search()) == 3
        assert "(d.nii.gz)" in caplog.text
        assert f"({os.path.join('case_a', '._a.nii.gz')})" in caplog.text
    empty = cohort.parent / "empty"
    empty.mkdir()
    (empty / "d.nii.gz").symlink_to("nowhere.nii.gz")
    for search in (lambda: find_scans(str(empty)), lambda: expand_inputs([empty], cohort.parent / "out")):
        with pytest.raises(UserError, match=r"no scan; 1 links .*\(d.nii.gz\)"):
            search()


def test_a_file_cut_by_the_length_of_its_extensions_is_truncated(tmp_path: Path) -> None:
    between = bytes([1, 0, 0, 0]) + EXTENSION
    path = write(tmp_path / "cut.nii", 352 + len(EXTENSION), between)
    np.testing.assert_array_equal(read_scan(path).values, voxels())
    path.write_bytes(path.read_bytes()[: -len(EXTENSION)])
    with pytest.raises(UserError, match="truncated"):
        read_scan(path)
