"""The user's own lobe mask, on the scan's grid: one file of labels, or one file a lobe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..anatomy.lobes import LOBES, read_lobes
from ..errors import UserError
from ..files import fit_name
from ..io.masks import read_mask
from ..io.volume import Scan
from .lung_masks import find_mask

_SINGLE = "lung_*_lobe_*.nii.gz"  # as TotalSegmentator names them


def find_lobes(path: Path, name: str) -> Path:
    """Find the lobe mask of a case.

    `path` is a file of labels, a folder of TotalSegmentator's single masks, or a folder in which
    either is called as the case.

    Raises:
        UserError: if there is no such mask.
    """
    for folder in (path, path / fit_name(name)):
        if folder.is_dir() and any(folder.glob(_SINGLE)):
            return folder
    return find_mask(path, name, "lobe mask")


def lobe_files(path: Path) -> list[Path]:
    """Return the single masks in a folder that `find_lobes` gave, in the order of `LOBES`.

    Lobes may be missing: a patient may lack one.
    """
    return [file for file in (path / f"{name}.nii.gz" for name in LOBES.values()) if file.is_file()]


def read_lobe_mask(path: Path, scan: Scan) -> NDArray[np.uint8]:
    """Read a lobe mask that belongs to a scan, (X, Y, Z), LPS, with the codes of `LOBES`.

    Raises:
        UserError: if it holds other values, lies on another grid than the scan, if single masks
            overlap, or if the lobes do not lie to each other as in a body.
    """
    try:
        return read_lobes(_join(path, scan) if path.is_dir() else read_mask(path, scan))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _join(folder: Path, scan: Scan) -> NDArray[np.uint8]:
    joined: NDArray[np.uint8] | None = None
    for code, name in enumerate(LOBES.values(), 1):
        file = folder / f"{name}.nii.gz"
        if not file.is_file():
            continue
        lobe = read_mask(file, scan) > 0
        joined = np.zeros(lobe.shape, np.uint8) if joined is None else joined
        if overlap := np.count_nonzero(joined[lobe]):
            raise ValueError(f"{file.name} has {overlap} voxels of another lobe; expected: one lobe a voxel")
        joined[lobe] = code
    if joined is None:
        raise ValueError(f"none of the five masks {_SINGLE}; expected: {', '.join(LOBES.values())}")
    return joined
