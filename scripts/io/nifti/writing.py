"""NIfTI files of one byte a voxel on the grid of a scan, written slice by slice."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.openers import ImageOpener
from numpy.typing import NDArray

from ...files import write_atomic
from ..geometry_checks import Affine
from ..grids import corner_distance
from .geometry import scale_quaternion
from .reading import read_header

_GRID = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


def header_like(path: Path, shape: tuple[int, int, int]) -> nib.Nifti1Header:
    """Return the grid of a NIfTI scan: affine, sform and qform with codes, units, number of axes.

    Nothing else is taken over: text fields and extensions may name a patient. A quaternion longer
    than 1 by rounding is scaled, because nibabel refuses it. `shape` (X, Y, Z) is that of the
    volume; a file of several volumes gives a header of one.
    """
    scan = read_header(path).header
    version = nib.Nifti2Header if isinstance(scan, nib.Nifti2Header) else nib.Nifti1Header
    header = version()
    stored = scan.get_data_shape()
    header.set_data_shape(stored if np.prod(stored) == np.prod(shape) else shape)
    for field in _GRID:
        header[field] = scan[field]
    with suppress(ValueError):  # no rotation: the scan's sform holds
        scale_quaternion(header)
    return header


def header_from_affine(affine: Affine, shape: tuple[int, int, int]) -> nib.Nifti1Header:
    """Return a grid in scanner coordinates and mm, for scans of other formats.

    A quaternion cannot express the shear of a tilted gantry; the qform is then left without a code.
    """
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_xyzt_units("mm")
    header.set_qform(affine, 1)
    header.set_sform(affine, 1)
    if corner_distance(shape, header.get_qform(), affine) > 0.01:
        header["qform_code"] = 0
    return header


def write_bytes(
    header: nib.Nifti1Header,
    slab: Callable[[int], NDArray[np.uint8]],
    path: Path,
    purpose: str,
    slope: float = 1.0,
    highest: float = 1.0,
) -> Path:
    """Write uint8 voxels slice by slice, atomically.

    Args:
        header: the grid.
        slab: gives the values (X, Y) of one index of the third axis.
        path: .nii.gz or .nii.
        purpose: one line that says what the values are.
        slope: what readers multiply the stored values with.
        highest: value that viewers show brightest.
    """
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(slope, 0)
    header["descrip"], header["cal_min"], header["cal_max"] = purpose, 0, highest
    header["vox_offset"] = header.single_vox_offset

    def write(temporary: Path) -> None:
        with ImageOpener(temporary, "wb") as file:
            header.write_to(file)
            for k in range((*header.get_data_shape(), 1)[2]):
                file.write(slab(k).tobytes(order="F"))

    return write_atomic(path, write)
