"""What asks for too much is refused before memory is taken; what ends native code ends no run."""

from __future__ import annotations

import gzip
import io
import os
import resource
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image
from pydicom import dcmread

from scripts.errors import UserError
from scripts.io import native
from scripts.io.dicom.archive import unpacked
from scripts.io.dicom.reading import read_dicom
from scripts.io.limits import VARIABLE, Limits, check_size, limited, parse_limits
from scripts.io.reading import read_scan, scan_files
from scripts.pipeline.case import Settings

SHAPE = (24, 20, 7)
META = """ObjectType = Image
NDims = {dims}
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 1.5 -2.5 30
ElementSpacing = 5 5 12
DimSize = {size}
ElementType = MET_SHORT
ElementDataFile = {data}
"""


def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 200, SHAPE).astype(np.int16)


def nifti(path: Path, version: type = nib.Nifti1Header, behind: bytes = b"", **fields: object) -> Path:
    """A gzipped NIfTI of `SHAPE` with `behind` behind it, whose header says what `fields` say."""
    header = version()
    header.set_data_shape(SHAPE)
    header.set_data_dtype(np.int16)
    header.set_sform(np.diag([-7.0, -8.0, 5.0, 1.0]), 1)
    header["magic"], header["vox_offset"] = (b"n+1", 352) if version is nib.Nifti1Header else (header["magic"], 544)
    for field, value in fields.items():
        header[field] = value
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + voxels().tobytes(order="F") + behind, 1))
    return path


def meta(path: Path, dims: object = 3, size: object = "24 20 7", data: str = "LOCAL") -> Path:
    path.write_bytes(META.format(dims=dims, size=size, data=data).encode() + voxels().tobytes(order="F"))
    return path


def nrrd(path: Path, change: Callable[[str], str]) -> Path:
    """A NRRD file whose lines of the header are changed."""
    sitk.WriteImage(sitk.GetImageFromArray(voxels().T), str(path))
    head, body = path.read_bytes().split(b"\n\n", 1)
    path.write_bytes(change(head.decode()).encode() + b"\n\n" + body)
    return path


def refused(read: Callable[[], object], words: str, seconds: float = 30) -> None:
    """The file is refused in one line, with little memory and soon."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(UserError, match=words) as error:
        read()
    assert len(str(error.value).splitlines()) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    assert time.process_time() - started < seconds


def test_the_largest_scans_of_the_clinic_are_within_the_defaults() -> None:
    for size in ((512, 512, 1500), (1024, 1024, 1000), (512, 512, 400, 10), (2048, 2048, 200), (512, 512, 1, 1500)):
        check_size("scan", size)
    for size in ((4097, 4097, 1), (16, 4097, 4097), (1024, 1024, 1025), (2,) * 8):
        with pytest.raises(UserError, match=r"--limit (\w+)=N or LUNG_INFECTION_CT_LIMITS=\1=N raises it"):
            check_size("scan", size)


def test_limits_are_raised_by_name() -> None:
    assert parse_limits(["voxels=4e9", "slice-voxels=100000000"]) == Limits(voxels=4_000_000_000, slice_voxels=10**8)
    for word in ("voxel=3", "voxels", "voxels=", "voxels=nan", "voxels=-1", "voxels=1.5", "voxels=1e30"):
        with pytest.raises(UserError, match="NAME=NUMBER, a whole one from 1, of dimensions, slice_voxels"):
            parse_limits([word])
    with limited(Limits(voxels=10)), pytest.raises(UserError, match="16 voxels"):
        check_size("scan", (4, 4, 1))
    check_size("scan", (4, 4, 1))


def test_the_environment_raises_limits_where_there_is_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of training, `monai.bundle`, MONAI Label and their workers; a command's own come on top."""
    size = (1024, 1024, 1025)
    with pytest.raises(UserError, match="voxels"):
        check_size("scan", size)
    monkeypatch.setenv(VARIABLE, "voxels=4e9, frames=5")
    check_size("scan", size)
    assert parse_limits(["frames=7"]) == Limits(voxels=4_000_000_000, frames=7)
    assert Settings().limits == Limits(voxels=4_000_000_000, frames=5)
    with limited(Limits()), pytest.raises(UserError, match="voxels"):
        check_size("scan", size)
    monkeypatch.setenv(VARIABLE, "voxels")
    with pytest.raises(UserError, match=f"environment variable {VARIABLE}: voxels: expected: NAME=NUMBER"):
        check_size("scan", size)


@pytest.mark.parametrize(
    "fields", [{"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, {"dim": [3, 2048, 2048, 2048, 1, 1, 1, 1]}]
)
def test_a_nifti_header_of_too_many_voxels(tmp_path, fields):
    refused(lambda: read_scan(nifti(tmp_path / "scan.nii.gz", **fields)), r"scan\.nii\.gz: \d.* voxels .*at most", 1)


def test_sizes_whose_product_overflows(tmp_path):
    for size in (2**21, 2**40):
        path = nifti(tmp_path / "a.nii.gz", nib.Nifti2Header, dim=[3, size, size, size, 1, 1, 1, 1])
        refused(lambda p=path: read_scan(p), "voxels in a slice", 1)


def test_a_header_that_states_more_than_deflate_can_hold(tmp_path):
    path = nifti(tmp_path / "scan.nii.gz", dim=[3, 1024, 1024, 1000, 1, 1, 1, 1])
    refused(lambda: read_scan(path), "times as many bytes stated by the header", 1)


def test_a_stream_that_goes_on_behind_the_voxels(tmp_path):
    with limited(Limits(trailing_bytes=2**20)):
        path = nifti(tmp_path / "bomb.nii.gz", behind=bytes(2**26))
        refused(lambda: read_scan(path), r"bytes or more behind its voxels; expected: at most 1,048,576")
        path = tmp_path / "bomb.mha"
        text = META.format(dims=3, size="24 20 7", data="LOCAL").replace(
            "CompressedData = False", "CompressedData = True"
        )
        path.write_bytes(text.encode() + zlib.compress(voxels().tobytes() + bytes(2**26)))
        refused(lambda: read_scan(path), "behind its voxels")


@pytest.mark.parametrize(
    ("dims", "size"), [(-1, "24 20 7"), (100, "24 20 7"), ("-24 20", "24 20 7"), (3, "24 20"), (3, "24 20 -7"), (0, "")]
)
def test_a_metaimage_whose_dimensions_would_end_itk(tmp_path, dims, size):
    refused(lambda: read_scan(meta(tmp_path / "scan.mha", dims, size)), r"scan\.mha: .*expected: ", 1)


def test_what_ends_itk_is_a_refusal(tmp_path):
    """The longest of these lines overrun a buffer of ITK."""
    for length in (1000, 10_000):
        path = nrrd(tmp_path / "scan.nrrd", lambda head, n=length: head.replace("endian: ", f"{'x' * n}: 3\nendian: "))
        refused(lambda p=path: read_scan(p), r"scan\.nrrd: cannot be read \(.+\); expected: NRRD or MetaImage")
        path = nrrd(tmp_path / "sizes.nrrd", lambda head, n=length: head.replace("sizes: ", f"sizes: {'x' * n} "))
        refused(lambda p=path: read_scan(p), r"sizes\.nrrd: .*expected: a number of axes", 1)
    good = meta(tmp_path / "good.mha")
    np.testing.assert_array_equal(read_scan(good).values, voxels())


def test_a_header_line_without_end(tmp_path):
    path = tmp_path / "scan.mha"
    path.write_bytes(b"Comment = " + b"x" * 10**6)
    refused(lambda: read_scan(path), "16,385 or more bytes in a line of the header", 1)


def write_slices(folder: Path, count: int = SHAPE[2]) -> str:
    """Write the first slices, a file each; return their names, one a line."""
    for k in range(count):
        (folder / f"slice{k:02d}.raw").write_bytes(voxels()[..., k].tobytes(order="F"))
    return "".join(f"slice{k:02d}.raw\n" for k in range(count))


def test_voxels_in_a_list_or_a_pattern_of_files(tmp_path):
    listed = "LIST\n" + write_slices(tmp_path)
    scan = meta(tmp_path / "pattern.mhd", data="slice%02d.raw 0 6 1")
    np.testing.assert_array_equal(read_scan(scan).values, voxels())
    (tmp_path / "list.mhd").write_text(META.format(dims=3, size="24 20 7", data=listed))
    np.testing.assert_array_equal(read_scan(tmp_path / "list.mhd").values, voxels())
    for pattern in (
        "%n%n%n 0 6 1",
        "%s 0 6 1",
        "%02d%02d.raw 0 6 1",
        "slice%02d.raw 0 6 0",
        "slice%02d.raw 0 999999999 1",
    ):
        refused(lambda p=pattern: read_scan(meta(tmp_path / "odd.mhd", data=p)), "its voxels are in", 1)


@pytest.mark.parametrize(
    "data", ["slice%02d.raw 0 5 1", "slice%02d.raw 0 6 1 2", "LIST\n{six}", "LIST\n", "LIST 3\nwhole.raw\n"]
)
def test_voxels_that_no_file_holds_are_not_made_up(tmp_path, data):
    """ITK leaves slices without a file as the memory was, with voxels of the scan before."""
    names = write_slices(tmp_path)
    (tmp_path / "whole.raw").write_bytes(voxels().tobytes(order="F"))
    listed = data.format(six=names.removeprefix("slice00.raw\n"))
    (tmp_path / "scan.mhd").write_text(META.format(dims=3, size="24 20 7", data=listed))
    words = (
        r"(24 x 20 x 7 voxels in [610] files of [23] axes each|raw 0 6 1 2); expected: (7 files of 2 axes|one number)"
    )
    refused(lambda: read_scan(tmp_path / "scan.mhd"), words, 1)


def test_a_file_of_a_list_that_is_cut_off_is_named(tmp_path):
    (tmp_path / "scan.mhd").write_text(META.format(dims=3, size="24 20 7", data="LIST 2D\n" + write_slices(tmp_path)))
    np.testing.assert_array_equal(read_scan(tmp_path / "scan.mhd").values, voxels())
    with (tmp_path / "slice03.raw").open("r+b") as file:
        file.truncate(900)
    refused(lambda: read_scan(tmp_path / "scan.mhd"), r"slice03\.raw: 900 bytes of voxels; expected: 960", 1)


@pytest.mark.parametrize("key", ["data file: LIST", "datafile: LIST 2"])
@pytest.mark.parametrize("ending", ["nhdr", "nrrd"])
def test_a_list_of_files_in_nrrd(tmp_path, key, ending):
    path = tmp_path / f"scan.{ending}"
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 24 20 7\nencoding: raw\nendian: little\n"
    path.write_text(f"{head}{key}\n{write_slices(tmp_path)}")
    np.testing.assert_array_equal(read_scan(path).values, voxels())
    assert scan_files(path) == [path, *(tmp_path / f"slice{k:02d}.raw" for k in range(SHAPE[2]))]
    path.write_text(f"{head}{key}\n")
    refused(lambda: scan_files(path), "in 0 files of 2 axes each; expected: 7 files of 2 axes", 1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for data in ("LIST\n" + "fifo\n" * 7, "fifo"):
        (tmp_path / "scan.mhd").write_text(META.format(dims=3, size="24 20 7", data=data))
        refused(lambda: read_scan(tmp_path / "scan.mhd"), r"its voxels are in fifo, which is missing", 1)


def test_a_picture_is_refused_before_it_is_decoded(tmp_path):
    Image.new("L", (5000, 5000)).save(tmp_path / "bomb.png")
    refused(lambda: read_scan(tmp_path / "bomb.png"), r"25,000,000 voxels in a slice \(5000 x 5000\)", 1)
    Image.new("L", (64, 64)).save(tmp_path / "a.tif")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.tif").read_bytes())
    refused(lambda: read_scan(tmp_path / "a.png"), r"no whole picture", 1)


def test_frames_of_a_dicom_file(tmp_path, write_series):
    write_series(tmp_path / "in", 1, change=lambda ds, _: setattr(ds, "NumberOfFrames", 2_000_000_000))
    refused(lambda: read_dicom(tmp_path / "in"), r"2,000,000,000 frames \(NumberOfFrames\)", 2)


def test_rows_and_columns_of_a_dicom_file(tmp_path, write_series):
    def change(ds, _):
        ds.Rows = ds.Columns = 65535

    write_series(tmp_path / "in", 3, change=change)
    refused(lambda: read_dicom(tmp_path / "in"), r"voxels in a slice", 2)


def test_a_deflated_data_set(tmp_path, write_series):
    """Read if its size is usual, refused before pydicom inflates it if not."""
    stored = write_series(tmp_path / "in", 3)
    for file in (tmp_path / "in").iterdir():
        ds = dcmread(file)
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
        ds.save_as(file, enforce_file_format=True)
    scan = read_dicom(tmp_path / "in")
    np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored.astype(int) - 1024)
    with limited(Limits(inflated_bytes=1000)):
        refused(lambda: read_dicom(tmp_path / "in"), r"unpacks to more than 1,000 bytes \(--limit inflated_bytes=N")


def test_an_archive_that_unpacks_to_too_much(tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("zeros.dcm", bytes(2**26))
    (tmp_path / "bomb.zip").write_bytes(content.getvalue())

    def enter() -> None:
        with unpacked(tmp_path / "bomb.zip"):
            pass

    refused(enter, "times as many bytes unpacked as packed; expected: at most 1,100", 1)


def test_impossible_voxel_sizes(tmp_path):
    for size in (2000.0, 1e-4):
        path = nifti(tmp_path / "a.nii.gz", srow_x=[-size, 0, 0, 0], xyzt_units=2)
        refused(lambda p=path: read_scan(p), r"voxels of .* mm .*; expected: 0\.01 to 100 mm along each axis", 1)


@pytest.mark.parametrize("place", ["length", "fragment"])
def test_a_dicom_file_that_ends_gdcm_or_takes_too_long_is_refused(tmp_path, write_series, monkeypatch, place):
    """The process that decodes is killed, as by a segmentation fault; the next file is read."""
    write_series(tmp_path / "in", 3)
    expected = read_dicom(tmp_path / "in").values
    ask = native._Child.ask

    def die(child: native._Child, request: dict, voxels: int) -> object:
        if place == "length":
            return ask(child, request, voxels + 1)
        child.process.kill()
        return ask(child, request, voxels)

    monkeypatch.setattr(native._Child, "ask", die)
    words = (
        "1920 values|480 values of type int16; the header states 481" if place == "length" else "reader ended: SIGKILL"
    )
    refused(lambda: read_dicom(tmp_path / "in"), rf"pixels .* cannot be decoded \(.*({words})")
    monkeypatch.undo()
    np.testing.assert_array_equal(read_dicom(tmp_path / "in").values, expected)


def test_memory_and_time_of_the_process_are_limited(tmp_path):
    """A NRRD file of 4 GiB is more than the process may take for 1,000 voxels."""
    path = tmp_path / "large.nhdr"
    path.write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 2048 1024 1024\n"
        "encoding: raw\nendian: little\ndata file: large.raw\n\n"
    )
    with (tmp_path / "large.raw").open("wb") as file:
        file.truncate(2**32)
    with pytest.raises(native.NativeError, match=r"memory|alloc"):
        native.read(path, "NrrdImageIO", 1000)
