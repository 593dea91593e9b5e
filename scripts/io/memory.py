"""A scan in memory: a nibabel image, a SimpleITK image, or an array with its affine."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own documentation's name
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from ..errors import UserError
from .itk.files import affine_of, judge_voxel_size
from .native import Information
from .nifti.geometry import read_geometry
from .nifti.reading import choose_volume
from .reading import checked
from .volume import Affine, Scan

EXPECTED = "a nibabel image, a SimpleITK image, or (array, affine)"


def scan_from_memory(image: Any, name: str = "scan", volume: int | None = None) -> Scan:
    """Turn an image in memory into a scan, with the findings that its file would give.

    Args:
        image: a nibabel image, a SimpleITK image, or a pair: an array (X, Y, Z) in HU, and its
            affine: voxel index to millimetres, RAS as in NIfTI, (4, 4).
        name: what the results and the messages call the scan.
        volume: which volume of several, from 1.

    Returns:
        The scan, with its axes in the order of the image; a SimpleITK image as (X, Y, Z), too.

    Raises:
        UserError: for another type, values that are no real numbers or masked, an array without an
            affine, and for a grid that `read_scan` would refuse.
    """
    path = Path(name)
    image, affine = image if isinstance(image, tuple) and len(image) == 2 else (image, None)
    if isinstance(image, SpatialImage):
        scan = _from_nibabel(image, path, volume)
    elif isinstance(image, sitk.Image):
        if (values := image.GetNumberOfComponentsPerPixel()) != 1:
            raise UserError(f"{name}: {values} values a voxel, as colour has; expected: one real number a voxel")
        scan = _from_array(sitk.GetArrayFromImage(image).T, affine_of(_information(image)), path, volume)
    elif isinstance(image, np.ndarray) and affine is not None:
        scan = _from_array(image, _as_affine(affine, name), path, volume)
    else:
        found = "an array without its affine" if isinstance(image, np.ndarray) else f"a {type(image).__name__}"
        raise UserError(f"{name}: {found}; expected: {EXPECTED}")
    scan.name = name
    return checked(scan)


def _as_affine(affine: Any, name: str) -> Affine:
    try:
        return np.array(affine, np.float64)
    except (TypeError, ValueError) as error:  # text, rows of several lengths, a tensor on a device
        found = str(error).partition("\n")[0]
        raise UserError(f"{name}: no affine ({found}); expected: (4, 4) real numbers on the CPU") from None


def _from_nibabel(image: SpatialImage, path: Path, volume: int | None) -> Scan:
    """Take stored values with their slope, as `read_scan` does, if the image holds them."""
    header, data, affine = image.header, image.dataobj, image.affine
    if affine is None and isinstance(header, nib.Nifti1Header):
        affine = header.get_best_affine()  # the file's
    if affine is None:
        raise UserError(f"{path}: an image without its affine; expected: {EXPECTED}")
    stored = hasattr(data, "get_unscaled") and getattr(data, "slope", None) is not None
    scan = _from_array(data.get_unscaled() if stored else np.asanyarray(data), affine, path, volume)
    if stored:
        scan.slope, scan.intercept = float(data.slope), float(data.inter)
    if isinstance(header, nib.Nifti1Header) and np.allclose(affine, header.get_best_affine(), equal_nan=True):
        chosen = [note for note in scan.notes if note.code in ("volume_chosen", "squeezed")]
        pixdim = [float(size) for size in header["pixdim"][1:4]]
        scan.affine, scan.voxel_size_known, notes = read_geometry(path, header, pixdim, scan.values.shape)
        scan.notes = chosen + notes
    return scan


def _from_array(array: NDArray[Any], affine: Affine, path: Path, volume: int | None) -> Scan:
    if array.dtype.kind not in "iuf":
        raise UserError(f"{path}: values of type {array.dtype}; expected: one real number a voxel")
    if np.ma.is_masked(array):
        found = f"{np.ma.count_masked(array):,} values are masked"
        raise UserError(f"{path}: {found}; expected: a value for each voxel, as of array.filled(-1024)")
    array = np.asarray(array)  # of a matrix, whose slices are matrices, too
    index, notes = choose_volume(path, array.shape, volume)
    x, y, z = (*array.shape, 1)[:3]
    values = array.reshape((x, y, z, -1), order="F")[..., index] if array.ndim != 3 else array
    known, doubts = judge_voxel_size(array.ndim, affine) if affine.shape == (4, 4) else (False, [])
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return Scan("", path, "memory", native, affine, voxel_size_known=known, notes=notes + doubts)


def _information(image: sitk.Image) -> Information:
    geometry = image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection()
    return Information(*geometry, image.GetNumberOfComponentsPerPixel(), image.GetPixelIDTypeAsString())
