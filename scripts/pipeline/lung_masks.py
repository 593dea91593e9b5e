"""The user's own lung mask, on the scan's grid."""

from __future__ import annotations

from pathlib import Path

from ..anatomy.lungs import Lungs
from ..errors import UserError
from ..files import fit_name
from ..io.geometry_checks import check_same_grid
from ..io.reading import FILE_SUFFIXES, read_scan
from ..io.volume import Scan


def find_lung_mask(path: Path, name: str) -> Path:
    """Find the lung mask of a case.

    `path` is the mask, or a folder with a mask called as the case.

    Raises:
        UserError: if there is no such mask.
    """
    if path.is_file():
        return path
    masks = [path / fit_name(name, suffix) for suffix in FILE_SUFFIXES]
    found = [mask for mask in masks if mask.is_file()]
    if not found:
        raise UserError(f"{path}: no lung mask for {name}; expected: {masks[0].name} or another format, or one file")
    return found[0]


def read_lung_mask(file: Path, scan: Scan) -> Lungs:
    """Read a lung mask that belongs to a scan.

    Raises:
        UserError: if it holds other values, or lies on another grid than the scan.
    """
    mask = read_scan(file)
    check_same_grid(mask, scan)
    try:
        return Lungs.from_mask(mask.lps()[0], scan.spacing_lps, scan.voxel_size_known)
    except ValueError as error:
        raise UserError(f"{file}: {error}; expected: 1 right lung, 2 left lung, or one value for both") from None
