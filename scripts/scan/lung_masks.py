"""The user's own lung mask, on the scan's grid."""

from __future__ import annotations

from pathlib import Path

from scripts.anatomy.lungs import Lungs
from scripts.errors import UserError
from scripts.scan.geometry_checks import check_same_grid
from scripts.scan.reading import FILE_SUFFIXES, read_scan
from scripts.scan.volume import Scan


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
        return Lungs.from_mask(mask.lps()[0], scan.spacing_lps, scan.voxel_size_known)
    except ValueError as error:
        raise UserError(f"{file}: {error}; accepted: 1 right lung, 2 left lung, or one value for both") from None


def _named(folder: Path, name: str) -> Path:
    found = [folder / f"{name}{suffix}" for suffix in FILE_SUFFIXES if (folder / f"{name}{suffix}").is_file()]
    if not found:
        raise UserError(f"{folder}: no lung mask for {name}; accepted: {name}.nii.gz or another format, or one file")
    return found[0]
