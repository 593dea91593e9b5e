from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from scripts.errors import UserError
from scripts.scan.writer import MaskWriter, write_mask

OBLIQUE = np.array([[-0.68, 0.12, 0.3, 90.0], [-0.14, -0.69, 0.4, 110.0], [0.03, -0.05, 4.9, -200.0], [0, 0, 0, 1.0]])


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
