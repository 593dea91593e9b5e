from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image
from scipy.spatial.transform import Rotation

from scripts.errors import UserError
from scripts.io.masks import (
    mask_path,
    write_mask,
    write_probability,
)
from scripts.io.monai_writer import MaskWriter
from scripts.io.reading import read_scan
from scripts.io.volume import Scan
from tests.conftest import OBLIQUE


def scan_file(path: Path, shape: tuple[int, ...], sform: int, qform: int, kind: type = nib.Nifti1Image) -> Path:
    header = kind.header_class()
    header.set_xyzt_units("mm", "sec")
    image = kind(np.full(shape, -500, np.float64), OBLIQUE, header)
    image.set_sform(OBLIQUE if sform else None, sform)
    image.set_qform(OBLIQUE if qform else None, qform)
    image.header["descrip"] = b"John Doe"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"John Doe"))
    nib.save(image, path)
    return path


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (2, 0), (0, 1), (4, 2), (0, 0), (1, 3)])
@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 1), (5, 6)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_geometry_is_the_scans(sform: int, qform: int, shape: tuple[int, ...], kind: type, tmp_path: Path) -> None:
    scan = nib.load(scan_file(tmp_path / "scan.nii.gz", shape, sform, qform, kind))
    mask = np.random.default_rng(0).integers(0, 2, (*shape, 1)[:3], dtype=np.uint8)
    found = nib.load(write_mask(mask, tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"))
    assert type(found) is type(scan)
    assert found.shape == scan.shape
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(found.dataobj), mask.reshape(shape))
    np.testing.assert_array_equal(found.affine, scan.affine)
    for field in ("sform_code", "qform_code", "xyzt_units", "pixdim", "srow_x", "srow_y", "srow_z", "quatern_b"):
        np.testing.assert_array_equal(found.header[field], scan.header[field], err_msg=field)
    assert found.header["scl_slope"] in (1, 0) or np.isnan(found.header["scl_slope"])


def test_a_quaternion_just_over_one_gives_a_mask_that_nibabel_opens(tmp_path: Path) -> None:
    path = scan_file(tmp_path / "scan.nii", SHAPE, 0, 1)
    data = path.read_bytes()
    header = nib.Nifti1Header(data[:348], check=False)
    header["quatern_b"], header["quatern_c"], header["quatern_d"] = 0, 0, 1.00005
    path.write_bytes(header.binaryblock + data[348:])
    mask = nib.load(write_mask(blob(), path, tmp_path / "mask.nii.gz"))
    np.testing.assert_allclose(mask.affine, read_scan(path).affine, atol=1e-4)
    assert (mask.header["qform_code"], mask.header["sform_code"]) == (1, 0)


def test_nothing_of_the_patient_is_copied(tmp_path: Path) -> None:
    scan = scan_file(tmp_path / "scan.nii", (4, 4, 4), 1, 1)
    write_mask(np.zeros((4, 4, 4), np.uint8), scan, tmp_path / "mask.nii")
    assert b"John Doe" in scan.read_bytes()
    assert b"John Doe" not in (tmp_path / "mask.nii").read_bytes()


def test_a_pictures_mask_has_its_size_and_way_round(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((6, 4), np.uint8)).save(tmp_path / "slice.jpg")  # 4 wide, 6 high
    mask = np.zeros((4, 6, 1), np.uint8)
    mask[3, 1] = 1  # column 3, row 1
    write_mask(mask, tmp_path / "slice.jpg", tmp_path / "mask.png")
    pixels = np.asarray(Image.open(tmp_path / "mask.png"))
    assert pixels.shape == (6, 4)
    assert pixels[1, 3] == 255
    assert pixels.sum() == 255


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    scan = scan_file(tmp_path / "scan.nii", (4, 5, 6), 1, 1)
    with pytest.raises(UserError, match=r"has \(4, 5, 6\) voxels, its mask \(4, 5, 5\)"):
        write_mask(np.zeros((4, 5, 5), np.uint8), scan, tmp_path / "mask.nii")
    assert not (tmp_path / "mask.nii").exists()


def test_monais_saver_keeps_dots_in_a_pictures_name(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((6, 4), np.uint8)).save(tmp_path / "scan.v2.png")
    writer = MaskWriter()
    writer.set_data_array(np.zeros((1, 4, 6, 1)))
    writer.set_metadata({"filename_or_obj": str(tmp_path / "scan.v2.png")})
    writer.write(str(tmp_path / "scan.v2_infection.nii.gz"))
    assert (tmp_path / "scan.v2_infection.png").exists()


SHAPE = (18, 20, 22)
LPS = np.array([-1, -1, 1])
ORIENTATIONS = [
    "".join(letters) for order in itertools.permutations(("LR", "AP", "IS")) for letters in itertools.product(*order)
]
GRIDS = ("GetSize", "GetOrigin", "GetSpacing", "GetDirection")


def blob(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A mask without any symmetry."""
    mask = np.random.default_rng(1).integers(0, 2, shape, dtype=np.uint8)
    mask[0, 0], mask[-1, -1] = 0, 1
    return mask


def rigid(turn: Rotation) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = turn.as_matrix() * [0.7, 0.8, 5]
    affine[:3, 3] = 90.5, -20.25, -310
    return affine


def itk_scan(path: Path, affine: np.ndarray, shape: tuple[int, ...] = SHAPE) -> Path:
    image = sitk.GetImageFromArray(np.zeros(shape[::-1], np.int16))
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(sizes.tolist())
    image.SetDirection((np.diag(LPS) @ affine[:3, :3] / sizes).ravel().tolist())
    image.SetOrigin((LPS * affine[:3, 3]).tolist())
    sitk.WriteImage(image, str(path))
    return path


def places(path: Path) -> np.ndarray:
    """World coordinates of the corners in mm, by SimpleITK."""
    image = sitk.ReadImage(str(path))
    corners = itertools.product(*((0, size - 1) for size in image.GetSize()))
    return np.array([image.TransformIndexToPhysicalPoint(corner) for corner in corners])


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_comes_back(orientation: str, ending: str, tmp_path: Path) -> None:
    codes = nib.orientations.axcodes2ornt
    turn = nib.orientations.ornt_transform(codes("RAS"), codes(orientation))
    affine = rigid(Rotation.from_euler("yx", [8, 5], degrees=True)) @ nib.orientations.inv_ornt_aff(turn, SHAPE)
    assert "".join(nib.aff2axcodes(affine)) == orientation
    path = tmp_path / f"scan.{ending}"
    if ending == "nii.gz":
        nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), affine), path)
    else:
        itk_scan(path, affine)
    scan, mask = read_scan(path), blob()
    written = write_mask(mask, scan, mask_path(tmp_path, scan))
    assert written.name == f"infection.{ending}"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(written))).T, mask)
    np.testing.assert_allclose(places(written), places(path), atol=1e-5)
    np.testing.assert_allclose(read_scan(written).affine, scan.affine, atol=1e-5)


@pytest.mark.parametrize("ending", ["nrrd", "nhdr", "mha", "mhd"])
def test_an_itk_masks_grid_is_the_scans_bit_for_bit(ending: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(12):  # three in four differ in the last bit without care
        affine = np.eye(4)
        affine[:3, :3] = Rotation.from_quat(rng.normal(size=4)).as_matrix() * rng.uniform(0.5, 5, 3)
        affine[:3, 3] = rng.uniform(-300, 300, 3)
        path = itk_scan(tmp_path / f"scan.{ending}", affine)
        written = write_mask(blob(), path, tmp_path / {"n": "mask.nrrd", "m": "mask.mha"}[ending[0]])
        source, found = sitk.ReadImage(str(path)), sitk.ReadImage(str(written))
        for grid in GRIDS:
            assert getattr(found, grid)() == getattr(source, grid)()
        assert found.GetPixelID() == sitk.sitkUInt8
        np.testing.assert_array_equal(sitk.GetArrayFromImage(found).T, blob())


def test_a_nrrd_in_ras_gets_a_mask_in_ras(tmp_path: Path) -> None:
    path = itk_scan(tmp_path / "scan.nhdr", np.diag([-0.7, -0.8, 5.0, 1.0]))
    path.write_bytes(path.read_bytes().replace(b"left-posterior-superior", b"right-anterior-superior"))
    written = write_mask(blob(), path, tmp_path / "mask.nrrd")
    np.testing.assert_array_equal(places(written), places(path))
    assert b"space: right-anterior-superior" in written.read_bytes()


def test_itk_masks_are_compressed_and_of_the_scans_size(tmp_path: Path) -> None:
    for ending in ("nrrd", "mha"):
        path = itk_scan(tmp_path / f"scan.{ending}", np.eye(4), (64, 64, 64))
        written = write_mask(np.zeros((64, 64, 64), np.uint8), path, tmp_path / f"mask.{ending}")
        assert written.stat().st_size < 2000
        with pytest.raises(UserError, match=r"has \(64, 64, 64\) voxels, its mask \(64, 64, 1\)"):
            write_mask(np.zeros((64, 64, 1), np.uint8), path, tmp_path / f"other.{ending}")
        assert not (tmp_path / f"other.{ending}").exists()


@pytest.mark.parametrize("ending", ["nrrd", "mha", "nii.gz"])
def test_slices_without_a_third_axis_and_chosen_volumes(ending: str, tmp_path: Path) -> None:
    flat, series = tmp_path / f"flat.{ending}", tmp_path / f"series.{ending}"
    image = sitk.GetImageFromArray(np.zeros((20, 18), np.int16))
    image.SetSpacing((0.7, 0.8))
    sitk.WriteImage(image, str(flat))
    whole = sitk.GetImageFromArray(np.zeros(SHAPE[::-1], np.int16))
    whole.SetSpacing((0.7, 0.8, 5))
    whole.SetOrigin((10, 20, 30))
    sitk.WriteImage(sitk.JoinSeries([whole, whole]), str(series))
    scan = read_scan(flat)
    written = write_mask(blob((18, 20, 1)), scan, mask_path(tmp_path, scan))
    found = sitk.ReadImage(str(written))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found).T, blob((18, 20, 1))[..., 0])
    np.testing.assert_array_equal(places(written), places(flat))
    scan = read_scan(series, 2)
    written = write_mask(blob(), scan, mask_path(tmp_path, scan))
    assert sitk.ReadImage(str(written)).GetSize() == SHAPE
    np.testing.assert_allclose(read_scan(written).affine, scan.affine)
    np.testing.assert_array_equal(read_scan(written).values, blob())


def test_pairs_misnamed_files_and_trailing_axes_get_a_mask(tmp_path: Path) -> None:
    image = nib.Nifti1Pair(np.zeros(SHAPE, ">i2"), OBLIQUE, nib.Nifti1Pair.header_class(endianness=">"))
    nib.save(image, tmp_path / "pair.img")
    nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 1), np.int16), OBLIQUE), tmp_path / "plain.nii")
    (tmp_path / "plain.nii").rename(tmp_path / "misnamed.nii.gz")
    for name, shape in (("pair.img", SHAPE), ("pair.hdr", SHAPE), ("misnamed.nii.gz", (*SHAPE, 1))):
        found = nib.load(write_mask(blob(), tmp_path / name, tmp_path / "mask.nii.gz"))
        assert found.shape == shape
        np.testing.assert_array_equal(found.affine, OBLIQUE.astype(np.float32))
        np.testing.assert_array_equal(np.asarray(found.dataobj).reshape(SHAPE), blob())


def test_no_text_field_is_copied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), OBLIQUE)
    for field in ("db_name", "aux_file", "intent_name"):
        image.header[field] = b"John Doe"
    nib.save(image, tmp_path / "scan.nii")
    assert (tmp_path / "scan.nii").read_bytes().count(b"John Doe") == 3
    assert b"John Doe" not in write_mask(blob(), tmp_path / "scan.nii", tmp_path / "mask.nii").read_bytes()


def test_a_scaled_scans_mask_is_not_scaled(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), OBLIQUE)
    image.header.set_slope_inter(2, -1024)
    nib.save(image, tmp_path / "scan.nii")
    assert nib.load(tmp_path / "scan.nii").dataobj.inter == -1024
    found = nib.load(write_mask(blob(), tmp_path / "scan.nii", tmp_path / "mask.nii"))
    np.testing.assert_array_equal(found.get_fdata(), blob())


def dicom_scan(affine: np.ndarray) -> Scan:
    return Scan("P001", Path("P001"), "dicom", np.zeros(SHAPE, np.int16), affine)


def test_the_mask_of_dicom_is_nifti_in_scanner_coordinates(tmp_path: Path) -> None:
    affine = np.diag([-0.7, -0.8, 5.0, 1.0])
    affine[:3, :3] = Rotation.from_euler("x", 12, degrees=True).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = 101.5, -20.25, -330.5
    scan = dicom_scan(affine)
    assert mask_path(tmp_path, scan).name == "infection.nii.gz"
    found = nib.load(write_mask(blob(), scan, mask_path(tmp_path, scan)))
    header = found.header
    assert (int(header["sform_code"]), int(header["qform_code"]), header.get_xyzt_units()[0]) == (1, 1, "mm")
    np.testing.assert_allclose(found.get_sform(), affine, atol=1e-4)
    np.testing.assert_allclose(found.get_qform(), affine, atol=1e-3)
    np.testing.assert_array_equal(np.asarray(found.dataobj), blob())
    with pytest.raises(UserError, match="P001: has"):
        write_mask(blob((18, 20, 21)), scan, tmp_path / "other.nii.gz")


def test_a_tilt_is_not_put_into_the_qform(tmp_path: Path) -> None:
    affine = np.diag([-0.7, -0.8, 5.0, 1.0])
    affine[1, 2] = 1.5
    found = nib.load(write_mask(blob(), dicom_scan(affine), tmp_path / "mask.nii.gz"))
    assert int(found.header["qform_code"]) == 0
    np.testing.assert_allclose(found.affine, affine, atol=1e-6)


@pytest.mark.parametrize("ending", ["nii.gz", "dicom"])
def test_probabilities_are_bytes_with_a_slope(ending: str, tmp_path: Path) -> None:
    probability = np.random.default_rng(0).random(SHAPE, np.float32)
    probability.flat[:2] = 0, 1
    levels = np.rint(255 * probability).astype(np.uint8)
    affine = rigid(Rotation.from_euler("x", 5, degrees=True))
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), affine), tmp_path / "scan.nii.gz")
    scan = dicom_scan(affine) if ending == "dicom" else read_scan(tmp_path / "scan.nii.gz")
    written = write_probability(levels, scan, mask_path(tmp_path, scan, "probability"))
    found = nib.load(written)
    assert written.name == "probability.nii.gz"
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(found.dataobj.get_unscaled(), levels)
    np.testing.assert_allclose(found.affine, scan.affine, atol=1e-5)
    np.testing.assert_allclose(found.get_fdata(), probability, atol=1 / 510 + 1e-6)
    assert found.get_fdata().max() == pytest.approx(1, abs=1e-7)
    np.testing.assert_allclose(sitk.GetArrayFromImage(sitk.ReadImage(str(written))).T, found.get_fdata(), atol=1e-6)
    with pytest.raises(UserError, match="expected: equal sizes"):
        write_probability(levels[:-1], scan, written)


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_probabilities_of_itk_files_are_levels(ending: str, tmp_path: Path) -> None:
    path = itk_scan(tmp_path / f"scan.{ending}", rigid(Rotation.identity()))
    scan, levels = read_scan(path), np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    written = write_probability(levels, scan, mask_path(tmp_path, scan, "probability"))
    assert written.name == f"probability.{ending}"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(written))).T, levels)
    np.testing.assert_array_equal(places(written), places(path))


def test_a_pictures_results_are_pictures(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(tmp_path / "slice.bmp")
    scan = read_scan(tmp_path / "slice.bmp")
    levels = np.zeros((24, 16, 1), np.uint8)
    levels[20, 3] = 128
    written = (
        write_mask(levels // 128, scan, mask_path(tmp_path, scan)),
        write_probability(levels, scan, mask_path(tmp_path, scan, "probability")),
    )
    assert [path.name for path in written] == ["infection.png", "probability.png"]
    for path, value in zip(written, (255, 128), strict=True):
        pixels = np.asarray(Image.open(path))
        assert pixels.shape == (16, 24)
        assert pixels[3, 20] == pixels.sum() == value
