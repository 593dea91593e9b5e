"""The user's own lung mask, on the scan's grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scripts.anatomy.lungs import Lungs
from scripts.errors import UserError
from scripts.scan.geometry_checks import largest_distance
from scripts.scan.reading import FILE_SUFFIXES, read_scan
from scripts.scan.segmenter import canonical
from scripts.scan.volume import Scan

TOLERANCE_MM = 0.01


def read_lung_mask(path: Path, name: str, scan: Scan) -> Lungs:
    """Reads a lung mask that belongs to a scan.

    Args:
        path: the mask, or a folder with a mask called `name`.
        name: what the case is called.
        scan: the scan.

    Raises:
        UserError: if there is no such mask, it holds other values, or it lies on another grid than the scan.
    """
    file = path if path.is_file() else _named(path, name)
    mask = read_scan(file)
    check_same_grid(mask, scan)
    try:
        return Lungs.from_mask(canonical(mask.values, mask.affine), scan.spacing_lps)
    except ValueError as error:
        raise UserError(f"{file}: {error}; accepted: 1 right lung, 2 left lung, or one value for both") from None


def check_same_grid(other: Scan, scan: Scan) -> None:
    """Refuses a mask that does not lie voxel on voxel with its scan.

    Raises:
        UserError: with both shapes, or both affines and how far the corners lie apart in mm.
    """
    if other.values.shape != scan.values.shape:
        found, wanted = (" x ".join(map(str, one.values.shape)) for one in (other, scan))
        raise UserError(f"{other.path}: has {found} voxels; accepted: the grid of {scan.path}, {wanted}")
    distance = largest_distance(other.affine, scan.affine, scan.values.shape)
    if distance > TOLERANCE_MM:
        found, wanted = (np.array2string(one.affine[:3], precision=4).replace("\n", "") for one in (other, scan))
        raise UserError(
            f"{other.path}: lies up to {distance:.2f} mm off its scan, affine {found}; accepted: the affine of "
            f"{scan.path}, {wanted}"
        )


def _named(folder: Path, name: str) -> Path:
    found = [folder / f"{name}{suffix}" for suffix in FILE_SUFFIXES if (folder / f"{name}{suffix}").is_file()]
    if not found:
        raise UserError(f"{folder}: no lung mask for {name}; accepted: {name}.nii.gz or another format, or one file")
    return found[0]
