"""The user's own lungs: a mask on the scan's grid, or a network that finds them."""

from __future__ import annotations

from pathlib import Path

import torch

from ..anatomy.lungs import Lungs
from ..errors import UserError
from ..files import fit_name
from ..inference.hounsfield import HounsfieldSlices
from ..inference.lung_network import SUFFIX, load_lung_network
from ..inference.metadata import metadata_path
from ..io.masks import read_mask
from ..io.reading import FILE_SUFFIXES, scan_files
from ..io.volume import Scan


def find_mask(path: Path, name: str, what: str = "lung mask") -> Path:
    """Find the mask of a case, or the weights that find lungs.

    `path` is the mask, a folder with a mask called as the case, or weights (.pt); `what` names it
    in the error.

    Raises:
        UserError: if there is no such mask.
    """
    if path.is_file():
        return path
    masks = [path / fit_name(name, suffix) for suffix in FILE_SUFFIXES]
    found = [mask for mask in masks if mask.is_file()]
    if not found:
        raise UserError(f"{path}: no {what} for {name}; expected: {masks[0].name} or another format, or one file")
    return found[0]


def lung_files(file: Path) -> list[Path]:
    """Return the files of a mask, or weights and their metadata."""
    return [file, metadata_path(file)] if file.suffix == SUFFIX else scan_files(file)


def own_lungs(file: Path, scan: Scan, slices: HounsfieldSlices, device: torch.device) -> Lungs | None:
    """Return the lungs that a mask holds or a network finds; a network finds none in a 2-D image.

    Raises:
        UserError: as `read_lung_mask` and `LungNetwork`.
    """
    if file.suffix != SUFFIX:
        return read_lung_mask(file, scan)
    return None if scan.picture else load_lung_network(file, device).find(scan, slices)


def read_lung_mask(file: Path, scan: Scan) -> Lungs:
    """Read a lung mask that belongs to a scan.

    Raises:
        UserError: if it holds other values, or lies on another grid than the scan.
    """
    mask = read_mask(file, scan)
    try:
        return Lungs.from_mask(mask, scan.spacing_lps, scan.voxel_size_known)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
