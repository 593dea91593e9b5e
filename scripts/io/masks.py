"""Masks and probabilities on the scan's own grid, in the format that the scan came in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import UserError
from ..files import write_atomic
from .geometry_checks import check_same_grid
from .images import is_picture, picture_size
from .itk.files import ITK_SUFFIXES, NRRD_SUFFIXES, itk_size, write_itk_bytes
from .nifti.reading import read_header
from .nifti.writing import header_from_affine, header_like, write_bytes
from .reading import read_scan
from .volume import Affine, Kind, Scan

_MASK = "infection mask: 0 background, 1 infection"
_PROBABILITY = "probability of infection, 0 to 1"
_CLASSES = "0 background, 1 ground glass, 2 consolidation"
_PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0]  # black, dark red, dark green, as in COVID-SemiSeg


def read_mask(path: Path, scan: Scan) -> NDArray[Any]:
    """Read a mask that belongs to a scan: its values, axes turned to LPS.

    Where the file has a slope, values are rounded to thousandths: whole ones come out whole.

    Raises:
        UserError: as `read_scan`, and for another grid than the scan's.
    """
    mask = read_scan(path)
    check_same_grid(mask, scan)
    stored, _ = mask.lps()
    return stored if (mask.slope, mask.intercept) == (1.0, 0.0) else np.round(mask.real(stored), 3)


def write_mask(mask: NDArray[np.uint8], scan: Scan | str | Path, path: str | Path) -> Path:
    """Write a mask with the geometry of the scan that it belongs to.

    A NIfTI mask has the scan's shape, affine, sform and qform with their codes, and units; MONAI's
    own writer changes the codes and squeezes a one-slice volume. Text fields and extensions of the
    header, which may hold a patient's name, are left out. A NRRD or MetaImage mask has the scan's
    origin, spacing and direction, bit for bit. The mask of a DICOM series, or of a scan in memory,
    is NIfTI in scanner coordinates.

    Args:
        mask: (X, Y, Z) in the scan's stored orientation, values in {0, 1}.
        scan: what was segmented, or its file: NIfTI, NRRD, MetaImage or a picture.
        path: the mask, named as `mask_path` names it; a picture's mask becomes PNG, 0 and 255.

    Raises:
        UserError: if the mask does not have the scan's size.
    """
    source = scan if isinstance(scan, Scan) else _unread(Path(scan))
    return _write_on_grid(mask * np.uint8(255) if source.picture else mask, source, Path(path), _MASK)


def _unread(path: Path) -> Scan:
    kind: Kind = "nifti"
    size: tuple[int, ...]
    if is_picture(path):
        kind, size = "picture", picture_size(path)
    elif path.name.lower().endswith(ITK_SUFFIXES):
        kind, size = "itk", itk_size(path)
    else:
        size = read_header(path).header.get_data_shape()
    return sized(path, kind, size, np.eye(4))


def sized(path: Path, kind: Kind, size: tuple[int, ...], affine: Affine) -> Scan:
    """Stand in for a scan of which only format, size and affine are known."""
    return Scan("", path, kind, np.broadcast_to(np.uint8(0), (*size, 1)[:3]), affine)


def write_probability(levels: NDArray[np.uint8], scan: Scan, path: Path) -> Path:
    """Write probabilities in 256 steps beside the mask, one byte per voxel, as `write_mask` writes.

    NIfTI gets the slope 1/255, so that its readers give 0 to 1, off by 1/510 at most. NRRD,
    MetaImage and PNG have no slope: there the values are 0 to 255. `levels` are 255 times the
    probability, rounded, (X, Y, Z) in the scan's stored orientation.
    """
    return _write_on_grid(levels, scan, path, _PROBABILITY, slope=1 / 255)


def write_classes(classes: NDArray[np.uint8], scan: Scan, path: Path) -> Path:
    """Write classes 0, 1, 2 as `write_mask` writes masks; a picture's become a palette PNG."""
    return _write_on_grid(classes, scan, path, _CLASSES, highest=2, palette=_PALETTE)


def _write_on_grid(
    values: NDArray[np.uint8],
    scan: Scan,
    path: Path,
    purpose: str,
    slope: float = 1.0,
    highest: float = 1.0,
    palette: Sequence[int] | None = None,
) -> Path:
    shape = scan.values.shape
    if values.shape != shape:
        raise UserError(f"{scan.path}: has {shape} voxels, its mask {values.shape}; expected: equal sizes")
    if scan.picture:
        pixels = Image.fromarray(np.ascontiguousarray(values[..., 0].T))
        if palette is not None:
            pixels.putpalette(palette)
        return write_atomic(path, lambda temporary: pixels.save(temporary))
    if scan.kind == "itk":
        return write_itk_bytes(values, scan.path, path)
    header = header_like(scan.path, shape) if scan.kind == "nifti" else header_from_affine(scan.affine, shape)
    return write_bytes(header, lambda k: values[..., k], path, purpose, slope, highest)


def mask_path(folder: Path, scan: Scan, what: str = "infection") -> Path:
    """Return where a mask goes: the scan's format, NIfTI for DICOM and for a scan in memory.

    Other voxels go there, too: `what` is "infection", "probability" or "classes".
    """
    return folder / f"{what}{'.nii.gz' if scan.kind in ('dicom', 'memory') else mask_suffix(scan.path)}"


def mask_suffix(scan: Path) -> str:
    """Return the extension of a file's mask: .nrrd, .mha, .png or .nii.gz."""
    suffix = scan.suffix.lower()
    if suffix in ITK_SUFFIXES:
        return ".nrrd" if suffix in NRRD_SUFFIXES else ".mha"
    return ".png" if is_picture(scan.name) else ".nii.gz"
