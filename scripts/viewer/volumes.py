"""A scan as the bytes of a NIfTI file, and where in it the lesions are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage

from ..anatomy.downsampling import ALL_NEIGHBOURS
from ..errors import UserError
from ..io.nifti.writing import header_from_affine
from ..io.volume import Scan

SHOWN_TYPES = ("uint8", "int16", "uint16", "float32")
"""Stored types that the page is sent as they are; others become float32, which is what it shows."""


def nifti_header(scan: Scan) -> nib.Nifti1Header:
    """Return the header under which `nifti_slices` are read: grid, type, slope and intercept."""
    shape: tuple[int, int, int] = scan.values.shape
    header = header_from_affine(scan.affine, shape)
    header.set_data_dtype(_shown_type(scan))
    header.set_slope_inter(scan.slope, scan.intercept)
    header["vox_offset"] = header.single_vox_offset
    return header


def nifti_size(header: nib.Nifti1Header) -> int:
    """Return the bytes of the whole file."""
    return int(header["vox_offset"] + np.prod(header.get_data_shape()) * header.get_data_dtype().itemsize)


def nifti_parts(scan: Scan) -> Iterator[bytes]:
    """Yield the file of a scan in pieces: the header, then the stored values slice by slice."""
    yield nifti_header(scan).binaryblock + bytes(4)  # no extensions
    for k in range(scan.values.shape[2]):
        yield scan.values[..., k].astype(_shown_type(scan)).tobytes(order="F")


def _shown_type(scan: Scan) -> np.dtype[Any]:
    stored = scan.values.dtype
    return np.dtype(stored.name if stored.name in SHOWN_TYPES else "float32")


def lesion_positions(mask: Scan, lesions: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Return a marked voxel of each lesion, the one nearest to its centre in its largest slice.

    A lesion's own centre may lie outside of it.

    Args:
        mask: above 0 where infected.
        lesions: as report.json lists them.

    Returns:
        Positions in mm towards right, anterior, superior, as NIfTI has them.

    Raises:
        UserError: if the report is not that of the mask, or of a version that did not say where
            lesions are largest.
    """
    values, affine = mask.lps()
    return [apply_affine(affine, _nearest(mask, values, one)).tolist() for one in lesions]


def _nearest(mask: Scan, values: NDArray[Any], lesion: Mapping[str, Any]) -> NDArray[np.int64]:
    if "box_index" not in lesion:
        raise UserError(f"{mask.path}: its report is of an earlier version; expected: segment the scan again")
    first = np.array([low for low, _ in lesion["box_index"]])
    around = values[tuple(slice(low, high + 1) for low, high in lesion["box_index"])]
    parts, count = ndimage.label(around > 0, ALL_NEIGHBOURS)  # a box may hold others, in the hollow of a crescent
    sizes, whole = np.bincount(parts.ravel()), tuple(map(slice, [0] * 3, around.shape))
    own = [
        part
        for part, place in enumerate(ndimage.find_objects(parts) if count else (), start=1)
        if place == whole and sizes[part] == lesion["infection_voxels"]
    ]
    z = lesion["largest_slice_from_inferior"] - 1 - first[2]
    marked = np.argwhere(np.isin(parts[..., z : z + 1], own)) + first + [0, 0, z]
    if not len(marked):
        found = f"nothing is marked where report.json has a lesion of {lesion['infection_voxels']} voxels"
        raise UserError(f"{mask.path}: {found}; expected: files of one run")
    distance = np.linalg.norm((marked - lesion["centroid_index"])[:, :2], axis=1)
    return np.asarray(marked[distance.argmin()])
