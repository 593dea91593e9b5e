from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image, ImageOps
from scipy.spatial.transform import Rotation

from scripts.errors import UserError
from scripts.io.masks import write_mask
from scripts.io.reading import read_grid, read_label, read_scan, scan_name
from scripts.io.volume import Scan
from scripts.transforms.loading import LoadScand

SHAPE = (24, 20, 7)
ITK = ("nrrd", "nhdr", "mha", "mhd")
FLIP = np.array([-1, -1, 1])


def oblique(sizes=(7.0, 8.0, 5.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [10, -15, 20], degrees=True).as_matrix() @ np.diag(FLIP) * sizes
    affine[:3, 3] = 90, 110, -200
    return affine


def hounsfield(shape=SHAPE, dtype=np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def nifti(path: Path, array: np.ndarray, affine=None, sform=1, qform=1, unit="mm", kind=nib.Nifti1Image, **fields):
    affine = oblique() if affine is None else affine
    image = kind(array, affine, dtype=array.dtype)
    image.set_sform(affine if sform else None, sform)
    image.set_qform(affine, qform) if qform else image.header.__setitem__("qform_code", 0)
    image.header.set_xyzt_units(unit)
    for field, value in fields.items():
        image.header[field] = value
    nib.save(image, path)
    return path


def patch(path: Path, **fields) -> Path:
    """Changes header fields of a plain NIfTI-1 file without anybody's repairs."""
    data = path.read_bytes()
    header = nib.Nifti1Header(data[:348], check=False)
    for field, value in fields.items():
        header[field] = value
    path.write_bytes(header.binaryblock + data[348:])
    return path


def itk(path: Path, array: np.ndarray, affine=None, compress=False) -> Path:
    affine = oblique() if affine is None else affine
    image = sitk.GetImageFromArray(array.T)
    lps = np.diag(FLIP) @ affine[:3]
    sizes = np.linalg.norm(lps[:, :3], axis=0)
    image.SetSpacing(sizes.tolist())
    image.SetDirection((lps[:, :3] / sizes).ravel().tolist())
    image.SetOrigin(lps[:, 3].tolist())
    sitk.WriteImage(image, str(path), useCompression=compress)
    return path


def codes(scan: Scan) -> list[tuple[str, str]]:
    return [(n.code, n.kind) for n in scan.notes if n.code not in ("implausible_voxel_size", "small_field_of_view")]


def refused(path: Path, *found: str, volume: int | None = None) -> None:
    with pytest.raises(UserError) as caught:
        read_scan(path, volume)
    message = str(caught.value)
    assert message.startswith(str(path.with_suffix(""))), message
    assert "; expected: " in message or "; expected: " in message
    assert "\n" not in message
    for words in found:
        assert words in message


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("ending", ["nii", "nii.gz", "img", *ITK])
def test_one_scan_in_every_format_lies_where_itk_puts_it(tmp_path, ending, compress):
    array, path = hounsfield(), tmp_path / f"scan.v2.{ending}"
    if ending in ITK:
        itk(path, array, compress=compress)
    else:
        nifti(path, array, kind=nib.Nifti1Pair if ending == "img" else nib.Nifti1Image)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.values, array)
    assert (scan.values.dtype, scan.name, scan.path) == (np.int16, "scan.v2", path)
    assert (scan.kind, scan.slope, scan.intercept) == ("itk" if ending in ITK else "nifti", 1, 0)
    oracle = sitk.ReadImage(str(path))
    for corner in itertools.product(*((0, size - 1) for size in SHAPE)):
        place = FLIP * oracle.TransformIndexToPhysicalPoint(corner)
        np.testing.assert_allclose((scan.affine @ [*corner, 1])[:3], place, atol=1e-3)
    np.testing.assert_allclose(scan.affine, oblique(), atol=1e-4)
    assert scan.voxel_size_known
    assert codes(scan) == []


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
def test_every_type_of_number_stays_as_it_is(tmp_path, dtype, order):
    array = hounsfield(dtype=np.dtype(dtype))
    array.flat[:2] = (np.iinfo if dtype[0] in "iu" else np.finfo)(dtype).max, 0
    image = nib.Nifti1Image(array, oblique(), nib.Nifti1Header(endianness=order), dtype=array.dtype)
    nib.save(image, tmp_path / "scan.nii")
    assert nib.load(tmp_path / "scan.nii").header.endianness == order
    nib.save(image, tmp_path / "scan.nii.gz")
    plain, packed = read_scan(tmp_path / "scan.nii"), read_scan(tmp_path / "scan.nii.gz")
    for scan in (plain, packed):
        np.testing.assert_array_equal(scan.values, array)
        assert scan.values.dtype == np.dtype(dtype)
        assert scan.values.dtype.isnative
        assert scan.facts["stored_type"] == str(np.dtype(dtype))
    assert isinstance(plain.values, np.memmap) == (order == "<" or dtype.endswith("1"))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.uint64, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_every_type_of_itk(tmp_path, dtype, ending):
    array = hounsfield(dtype=dtype)
    scan = read_scan(itk(tmp_path / f"scan.{ending}", array))
    np.testing.assert_array_equal(scan.values, array)
    assert scan.values.dtype == dtype


def test_what_is_no_plain_number_is_refused_by_name(tmp_path):
    path = nifti(tmp_path / "complex.nii", np.zeros(SHAPE, np.complex64))
    refused(path, "type complex64")
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, oblique()), tmp_path / "rgb.nii.gz")
    refused(tmp_path / "rgb.nii.gz", "type RGB")
    refused(patch(nifti(tmp_path / "quad.nii", hounsfield()), datatype=1536, bitpix=128), "float128")
    refused(patch(nifti(tmp_path / "bits.nii", hounsfield()), datatype=1, bitpix=1), "binary")
    refused(patch(nifti(tmp_path / "code.nii", hounsfield()), datatype=77), "77")
    for ending in ("nrrd", "mha"):
        colour = sitk.GetImageFromArray(np.zeros((*SHAPE, 3), np.uint8), isVector=True)
        sitk.WriteImage(colour, str(tmp_path / f"colour.{ending}"))
        refused(tmp_path / f"colour.{ending}", "3 values a voxel")
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros(SHAPE, np.complex64)), str(tmp_path / f"complex.{ending}"))
        refused(tmp_path / f"complex.{ending}", "a voxel")


@pytest.mark.parametrize(
    ("slope", "intercept", "expected"),
    [(1, -1024, (1, -1024)), (2.5, 10, (2.5, 10)), (0, 0, (1, 0)), (0, -1024, (1, 0)), (np.nan, np.nan, (1, 0))],
)
def test_scaling_is_the_standards(tmp_path, slope, intercept, expected):
    path = patch(nifti(tmp_path / "scan.nii", hounsfield()), scl_slope=slope, scl_inter=intercept)
    scan = read_scan(path)
    assert (scan.slope, scan.intercept) == expected
    np.testing.assert_array_equal(scan.values, hounsfield())
    np.testing.assert_allclose(scan.values * scan.slope + scan.intercept, nib.load(path).get_fdata())


def test_a_slope_without_an_intercept_is_refused(tmp_path):
    path = patch(nifti(tmp_path / "scan.nii", hounsfield()), scl_slope=1, scl_inter=np.nan)
    refused(path, "scl_inter")


def cut(path: Path, keep: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def flip(path: Path, place: int) -> Path:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x55
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("keep", [0.999, 0.6])
def test_a_cut_file_is_refused_with_its_sizes(tmp_path, keep):
    total = 352 + 2 * np.prod(SHAPE)
    path = cut(nifti(tmp_path / "scan.nii", hounsfield()), keep)
    refused(path, f"{path.stat().st_size} bytes", f"{total}")
    refused(cut(nifti(tmp_path / "scan.nii.gz", hounsfield()), keep), "damaged gzip")
    pair = nifti(tmp_path / "pair.img", hounsfield(), kind=nib.Nifti1Pair)
    refused(cut(pair, keep), "bytes", f"{total - 352}")
    for ending, compress in itertools.product(ITK, (False, True)):
        path = itk(tmp_path / f"{ending}{compress}.{ending}", hounsfield(), compress=compress)
        detached = {"nhdr": "raw.gz" if compress else "raw", "mhd": "zraw" if compress else "raw"}.get(ending)
        cut(path.with_suffix(f".{detached}") if detached else path, keep)
        refused(path, f"expected: {2 * np.prod(SHAPE)}")


def test_a_gzip_that_unpacks_to_too_little_is_refused(tmp_path):
    plain = nifti(tmp_path / "scan.nii", hounsfield()).read_bytes()
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(plain[:-100]))
    refused(tmp_path / "scan.nii.gz", f"{len(plain) - 100}", f"expected: {len(plain)}")


def test_a_wrong_checksum_is_refused(tmp_path):
    for place in (-6, 2000):  # the checksum itself; voxels
        refused(flip(nifti(tmp_path / "scan.nii.gz", hounsfield()), place), "damaged gzip")
    for ending, place in itertools.product(("nrrd", "mha"), (-6, -2, 1500)):
        refused(flip(itk(tmp_path / f"scan.{ending}", hounsfield(), compress=True), place), "bytes")


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "hdr", *ITK, "png", "jpg"])
def test_what_is_not_what_its_name_says_is_refused(tmp_path, ending):
    path = tmp_path / f"scan.{ending}"
    path.with_suffix(".img").touch()
    path.write_bytes(b"")
    refused(path, "0 bytes")
    path.write_bytes(b"no scan at all\n" * 60)
    refused(path, "bytes")
    if ending != "nii.gz":
        path.write_bytes(gzip.compress(b"no scan at all\n" * 60)[:-9])
        refused(path)


def test_missing_files_and_partners_are_named(tmp_path):
    refused(tmp_path / "scan.nii.gz", "no such file")
    refused(tmp_path, "a folder")
    (tmp_path / "scan.txt").write_text("x")
    refused(tmp_path / "scan.txt", ".nii.gz, .nii")
    for ending, partner in (("hdr", "img"), ("img", "hdr")):
        nifti(tmp_path / "pair.img", hounsfield(), kind=nib.Nifti1Pair)
        (tmp_path / f"pair.{partner}").unlink()
        refused(tmp_path / f"pair.{ending}", f"pair.{partner} is missing")
    for ending in ("nhdr", "mhd"):
        path = itk(tmp_path / f"alone.{ending}", hounsfield())
        (tmp_path / "alone.raw").unlink()
        refused(path, "alone.raw, which is missing")


@pytest.mark.parametrize(("shift", "noted"), [(0.005, False), (0.02, True), (30.0, True)])
def test_forms_are_compared_in_mm(tmp_path, shift, noted):
    path = nifti(tmp_path / "scan.nii", hounsfield())
    patch(path, qoffset_y=nib.load(path).header["qoffset_y"] + shift)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.affine, nib.load(path).get_sform())
    assert codes(scan) == [("forms_differ", "warning")] * noted
    assert not noted or f"{shift:.2f} mm apart; the sform is used" in scan.notes[0].text


def test_a_turned_qform_is_measured_at_the_far_corner(tmp_path):
    path = nifti(tmp_path / "scan.nii", hounsfield(), np.diag([5.0, 6.0, 7.0, 1.0]))
    patch(path, quatern_d=1.0)  # half a turn about z: the far corner goes across
    [note] = [note for note in read_scan(path).notes if note.code == "forms_differ"]
    assert f"{2 * np.hypot(23 * 5, 19 * 6):.2f} mm" in note.text


def test_a_qform_alone_is_used(tmp_path):
    scan = read_scan(nifti(tmp_path / "scan.nii", hounsfield(), sform=0))
    np.testing.assert_allclose(scan.affine, oblique(), atol=1e-4)
    assert codes(scan) == []
    broken = patch(nifti(tmp_path / "bad.nii", hounsfield(), sform=0), quatern_b=0.9, quatern_c=0.9)
    refused(broken, "qform without a rotation")
    with_sform = patch(nifti(tmp_path / "good.nii", hounsfield()), quatern_b=0.9, quatern_c=0.9)
    assert codes(read_scan(with_sform)) == [("forms_differ", "warning")]


def test_without_codes_the_orientation_is_an_assumption(tmp_path):
    path = nifti(tmp_path / "scan.nii", hounsfield(), sform=0, qform=0)
    scan = read_scan(path)
    assert codes(scan) == [("orientation_unknown", "assumption")]
    np.testing.assert_array_equal(scan.affine, nib.load(path).affine)
    assert scan.voxel_size_known


def test_nibabel_says_nothing_of_its_repairs(tmp_path, caplog):
    path = patch(nifti(tmp_path / "scan.nii", hounsfield()), pixdim=[5, 7, 8, 5, 1, 1, 1, 1], sform_code=77)
    read_scan(path)
    assert caplog.records == []
    nib.Nifti1Header(path.read_bytes()[:348])
    assert "sform_code 77 not valid; setting to 0" in caplog.messages  # to others it does


def test_pixdim_that_contradicts_the_sform_is_told(tmp_path):
    path = patch(nifti(tmp_path / "scan.nii", hounsfield(), qform=0), pixdim=[1, 2, 2, 2, 1, 1, 1, 1])
    scan = read_scan(path)
    assert codes(scan) == [("forms_differ", "warning")]
    assert "7 x 8 x 5 and 2 x 2 x 2" in scan.notes[0].text


@pytest.mark.parametrize(
    ("unit", "sizes", "expected", "note"),
    [
        ("mm", (0.7, 0.7, 5), (0.7, 0.7, 5), None),
        ("unknown", (0.7, 0.7, 5), (0.7, 0.7, 5), ("unit_assumed", "assumption")),
        ("meter", (0.0007, 0.0007, 0.005), (0.7, 0.7, 5), ("unit_converted", "repair")),
        ("micron", (700, 700, 5000), (0.7, 0.7, 5), ("unit_converted", "repair")),
        ("meter", (0.7, 0.7, 5), (0.7, 0.7, 5), ("unit_assumed", "assumption")),
    ],
)
def test_units_become_millimetres(tmp_path, unit, sizes, expected, note):
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = 10
    scan = read_scan(nifti(tmp_path / "scan.nii", hounsfield(), affine, unit=unit))
    np.testing.assert_allclose(scan.spacing, expected, rtol=1e-6)
    np.testing.assert_allclose(scan.affine[:3, 3], 10 * np.divide(expected, sizes), rtol=1e-6)
    assert codes(scan) == ([note] if note else [])
    assert scan.voxel_size_known


def one_mm(origin: float) -> np.ndarray:
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = origin
    return affine


@pytest.mark.parametrize(
    ("affine", "settings", "known"),
    [
        (one_mm(0), {}, False),
        (one_mm(40), {"unit": "unknown"}, False),
        (one_mm(40), {"sform": 0, "qform": 0}, False),
        (one_mm(40), {}, True),  # resampled to 1 mm
        (np.diag([0.02, 0.02, 0.02, 1.0]), {"unit": "unknown"}, False),
        (np.diag([700.0, 700.0, 900.0, 1.0]), {"unit": "unknown"}, False),
    ],
)
def test_a_writers_default_is_no_voxel_size(tmp_path, affine, settings, known):
    scan = read_scan(nifti(tmp_path / "scan.nii", hounsfield(), affine, **settings))
    assert scan.voxel_size_known == known
    assert (("voxel_size_unknown", "warning") in codes(scan)) != known


@pytest.mark.parametrize("size", [0, -0.7])
def test_no_size_in_pixdim_is_no_voxel_size(tmp_path, size):
    pixdim = [1, 0.7, 0.7, size, 1, 1, 1, 1]
    known = read_scan(patch(nifti(tmp_path / "sform.nii", hounsfield(), qform=0), pixdim=pixdim))
    assert known.voxel_size_known
    scan = read_scan(patch(nifti(tmp_path / "qform.nii", hounsfield(), sform=0), pixdim=pixdim))
    assert not scan.voxel_size_known


@pytest.mark.parametrize("row", [[0, 0, 0, 0], [np.nan, 0, 0, 0]])
def test_a_broken_sform_gives_way_to_a_good_qform_and_is_refused_without(tmp_path, row):
    scan = read_scan(patch(nifti(tmp_path / "scan.nii", hounsfield()), srow_z=row))
    np.testing.assert_allclose(scan.affine, oblique(), atol=1e-4)
    assert codes(scan) == [("forms_differ", "warning")]
    assert "the qform is used" in scan.notes[0].text
    refused(patch(nifti(tmp_path / "alone.nii", hounsfield(), qform=0), srow_z=row), "affine")
    both = nifti(tmp_path / "both.nii", hounsfield())
    refused(patch(both, srow_z=row, quatern_b=0.9, quatern_c=0.9), "qform without a rotation")


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "mha"])
def test_of_several_volumes_the_one_asked_for_is_taken(tmp_path, ending):
    series = np.random.default_rng(0).integers(-1000, 100, (*SHAPE, 3)).astype(np.int16)
    path = tmp_path / f"series.{ending}"
    if ending.startswith("nii"):
        nifti(path, series)
    else:
        slices = [sitk.GetImageFromArray(series[..., n].T) for n in range(3)]
        for image in slices:
            image.SetSpacing((7, 8, 5))
            image.SetOrigin((10, 20, 30))
        sitk.WriteImage(sitk.JoinSeries(slices), str(path))
    refused(path, "3 volumes (24 x 20 x 7 x 3)", "--volume N")
    for volume in (0, 4, -1):
        refused(path, f"--volume {volume} of 3", volume=volume)
    for volume in (1, 2, 3):
        scan = read_scan(path, volume)
        np.testing.assert_array_equal(scan.values, series[..., volume - 1])
        assert codes(scan)[0] == ("volume_chosen", "assumption")
        np.testing.assert_allclose(scan.spacing, (7, 8, 5), rtol=1e-6)


def test_axes_of_length_one_are_dropped(tmp_path):
    array = hounsfield()
    scan = read_scan(nifti(tmp_path / "scan.nii.gz", array[..., None, None]))
    np.testing.assert_array_equal(scan.values, array)
    assert codes(scan) == [("squeezed", "repair")]
    assert "24 x 20 x 7 x 1 x 1" in scan.notes[0].text
    assert read_scan(nifti(tmp_path / "one.nii", array), 1).values.shape == SHAPE
    refused(tmp_path / "one.nii", "--volume 2 of 1", volume=2)


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
def test_a_two_dimensional_scan_is_one_slice(tmp_path, ending):
    plane, path = hounsfield()[..., 0], tmp_path / f"slice.{ending}"
    if ending == "nii.gz":
        nifti(path, plane)
    else:
        image = sitk.GetImageFromArray(plane.T)
        image.SetSpacing((7, 8))
        image.SetOrigin((10, 20))
        sitk.WriteImage(image, str(path))
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.values, plane[..., None])
    assert not scan.voxel_size_known
    assert {("voxel_size_unknown", "warning"), ("few_slices", "warning")} <= set(codes(scan))
    np.testing.assert_allclose(scan.spacing[:2], (7, 8), rtol=1e-6)
    if ending != "nii.gz":
        np.testing.assert_array_equal(scan.affine @ [2, 3, 0, 1], [-24, -44, 0, 1])


def test_what_is_gzipped_is_told_by_content(tmp_path):
    plain, packed = nifti(tmp_path / "a.nii", hounsfield()), nifti(tmp_path / "b.nii.gz", hounsfield())
    for source, name in ((plain, "c.nii.gz"), (packed, "d.nii")):
        scan = read_scan(source.rename(tmp_path / name))
        np.testing.assert_array_equal(scan.values, hounsfield())
        assert codes(scan) == [("misnamed", "repair")]


def test_a_tilted_gantry_is_kept_exactly(tmp_path):
    tilted = oblique()
    tilted[:3, 2] += 0.3 * tilted[:3, 1]
    for path in (
        nifti(tmp_path / "s.nii", hounsfield(), tilted, qform=0),
        itk(tmp_path / "s.nrrd", hounsfield(), tilted),
    ):
        scan = read_scan(path)
        np.testing.assert_allclose(scan.affine, tilted, atol=1e-4)
        assert ("gantry_tilt", "warning") in codes(scan)


def header_lines(path: Path, *dropped: str) -> Path:
    data = path.read_bytes()
    lines = [line for line in data.split(b"\n") if not line.startswith(tuple(word.encode() for word in dropped))]
    path.write_bytes(b"\n".join(lines))
    return path


def test_what_a_text_header_does_not_say_is_not_known(tmp_path):
    nrrd = header_lines(itk(tmp_path / "scan.nhdr", hounsfield()), "space")
    scan = read_scan(nrrd)
    assert codes(scan) == [("orientation_unknown", "assumption"), ("voxel_size_unknown", "warning")]
    nrrd.write_bytes(nrrd.read_bytes().rstrip(b"\n") + b"\nspacings: 7 8 5\n\n")
    scan = read_scan(nrrd)
    assert scan.voxel_size_known
    assert codes(scan) == [("orientation_unknown", "assumption")]
    meta = header_lines(itk(tmp_path / "scan.mhd", hounsfield()), "ElementSpacing", "TransformMatrix")
    assert codes(read_scan(meta)) == [("orientation_unknown", "assumption"), ("voxel_size_unknown", "warning")]
    default = itk(tmp_path / "default.mha", hounsfield(), one_mm(0))
    assert not read_scan(default).voxel_size_known
    assert read_scan(itk(tmp_path / "good.mha", hounsfield(), one_mm(3))).voxel_size_known


@pytest.mark.parametrize(
    ("function", "kept"),
    [
        ("Slope = 1", True),
        ("Offset = 0.0", True),
        ("Slope = 2", False),
        ("Offset = -1024", False),
        ("Slope = x", False),
    ],
)
def test_intensities_that_itk_would_pass_over_are_refused(tmp_path, function, kept):
    path = itk(tmp_path / "scan.mha", hounsfield())
    before = path.read_bytes()
    path.write_bytes(before.replace(b"ElementType", f"ElementToIntensityFunction{function}\nElementType".encode()))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T, hounsfield())
    if kept:
        np.testing.assert_array_equal(read_scan(path).values, hounsfield())
        return
    with pytest.raises(UserError, match=r"scan\.mha: ElementToIntensityFunction changes the stored values, which ITK"):
        read_scan(path)


@pytest.mark.parametrize(
    ("ending", "line", "dropped"),
    [
        ("nhdr", 'space units: "cm" "cm" "cm"', "none"),
        ("nhdr", 'spacings: 7 8 5\nunits: "cm" "cm" "cm"', "space"),
        ("mhd", "DistanceUnits = cm", "none"),
    ],
)
def test_lengths_in_another_unit_are_no_millimetres(tmp_path, ending, line, dropped):
    path = header_lines(itk(tmp_path / f"scan.{ending}", hounsfield()), dropped)
    key, plain = b"endian" if ending == "nhdr" else b"ElementType", path.read_bytes()
    for unit, known in (("cm", False), ("mm", True)):
        path.write_bytes(plain.replace(key, f"{line.replace('cm', unit)}\n".encode() + key))
        scan = read_scan(path)
        assert scan.voxel_size_known == known
        assert any("lengths in cm, not in mm: the voxel size is not known" in note.text for note in scan.notes) != known
        if ending == "nhdr":
            mask = read_scan(write_mask(np.zeros(SHAPE, np.uint8), scan, tmp_path / "mask.nrrd"))
            assert mask.voxel_size_known == known


def test_nrrd_in_ras_is_turned(tmp_path):
    path = itk(tmp_path / "scan.nhdr", hounsfield())
    path.write_bytes(path.read_bytes().replace(b"left-posterior-superior", b"right-anterior-superior"))
    np.testing.assert_allclose(read_scan(path).affine, np.diag([*FLIP, 1]) @ oblique(), atol=1e-9)


def test_a_picture_lies_as_it_is_shown(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30), dtype=np.uint8)  # 20 rows, 30 columns
    Image.fromarray(pixels).save(tmp_path / "slice.v2.PNG")
    scan = read_scan(tmp_path / "slice.v2.PNG")
    assert scan.values.shape == (30, 20, 1)
    assert scan.values[29, 3, 0] == pixels[3, 29]
    assert (scan.name, scan.kind, scan.picture, scan.voxel_size_known) == ("slice.v2", "picture", True, False)
    np.testing.assert_array_equal(scan.affine, np.diag([-1, -1, 1, 1]))
    assert codes(scan) == [("picture_orientation", "assumption")]
    refused(tmp_path / "slice.v2.PNG", "--volume 2", volume=2)


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 6])
def test_a_photograph_lies_as_viewers_turn_it(tmp_path, ending, orientation):
    pixels = np.full((20, 30), 40, np.uint8)
    pixels[:4, :9] = 200
    path, exif = tmp_path / f"a.{ending}", Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif, quality=100)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.values[..., 0].T, shown)
    np.testing.assert_array_equal(read_label(path), shown)
    for labels in (False, True):
        np.testing.assert_array_equal(LoadScand(["a"], labels)({"a": path})["a"][0].T, shown)
    assert read_grid(path).shape[:2] == read_grid(path, decode=False).shape[:2] == scan.values.shape[:2]
    assert codes(scan)[1:] == [("picture_turned", "repair")] * (orientation != 1)
    mask = Image.open(write_mask((scan.values > 120).astype(np.uint8), scan, tmp_path / "mask.png"))
    np.testing.assert_array_equal(np.asarray(mask) > 0, shown > 120)
    assert write_mask(np.zeros(scan.values.shape, np.uint8), path, tmp_path / "again.png").is_file()


def test_colour_in_a_picture_is_told(tmp_path):
    grey = np.full((40, 40, 3), 90, np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.jpg")
    assert codes(read_scan(tmp_path / "grey.jpg")) == [("picture_orientation", "assumption")]
    grey[:4, :10] = 255, 0, 0
    Image.fromarray(grey).save(tmp_path / "marked.bmp")
    scan = read_scan(tmp_path / "marked.bmp")
    assert codes(scan)[1] == ("coloured", "warning")
    assert "2.5%" in scan.notes[1].text
    assert scan.values[0, 0] == 76  # 0.299 * 255


def test_pictures_that_cannot_be_used_are_refused(tmp_path):
    deep = Image.fromarray(np.zeros((40, 40), np.uint16))
    deep.save(tmp_path / "deep.png")
    refused(tmp_path / "deep.png", "more than 8 bits")
    Image.fromarray(np.zeros((15, 40), np.uint8)).save(tmp_path / "small.png")
    refused(tmp_path / "small.png", "40 x 15")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))
    for ending in ("png", "jpg", "bmp"):
        noise.save(tmp_path / f"cut.{ending}")
        refused(cut(tmp_path / f"cut.{ending}", 0.6), "no whole picture")
    noise.save(tmp_path / "two.png", save_all=True, append_images=[deep.convert("L").resize((64, 64))])
    refused(tmp_path / "two.png", "2 frames")


def test_names_keep_their_dots():
    assert scan_name(Path("1.2.840.nii.gz")) == "1.2.840"
    assert scan_name(Path("a.nrrd")) == "a"
    assert scan_name(Path(".nii.gz")) == ".nii.gz"


@pytest.mark.real_data
def test_real_scans_read_as_nibabel_reads_them(lung_ct_data):
    paths = sorted(lung_ct_data.glob("*/*.nii.gz"))
    assert len(paths) == 3
    for path in paths:
        scan, oracle = read_scan(path), nib.load(path)
        np.testing.assert_array_equal(scan.values, oracle.dataobj.get_unscaled())
        np.testing.assert_array_equal(scan.affine, oracle.affine)
        assert scan.voxel_size_known
    assert [note.code for note in scan.notes] == ["unit_assumed"]
