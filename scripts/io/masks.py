"""Masks and probabilities on the scan's own grid, in the format that the scan came in."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageWriter
from monai.utils import convert_to_numpy
from numpy.typing import NDArray
from PIL import Image

from ..errors import UserError
from ..files import fit_name, write_atomic
from .images import is_picture
from .itk.files import ITK_SUFFIXES, NRRD_SUFFIXES, itk_size, write_itk_bytes
from .nifti.reading import read_header
from .nifti.writing import header_from_affine, header_like, write_bytes
from .reading import scan_name
from .volume import Scan

logger = logging.getLogger(__name__)

_MASK = "infection mask: 0 background, 1 infection"
_PROBABILITY = "probability of infection, 0 to 1"
_CLASSES = "0 background, 1 ground glass, 2 consolidation"
_PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0]  # black, dark red, dark green, as in COVID-SemiSeg


def write_mask(mask: NDArray[np.uint8], scan: str | Path, path: str | Path) -> Path:
    """Write a mask with the geometry of the file that it belongs to.

    A NIfTI mask has the scan's shape, affine, sform and qform with their codes, and units; MONAI's
    own writer changes the codes and squeezes a one-slice volume. Text fields and extensions of the
    header, which may hold a patient's name, are left out. A NRRD or MetaImage mask has the scan's
    origin, spacing and direction, bit for bit.

    Args:
        mask: (X, Y, Z) in the scan's stored orientation, values in {0, 1}.
        scan: the file that was segmented: NIfTI, NRRD, MetaImage or a picture.
        path: the mask; a picture's mask becomes PNG, 0 and 255.

    Returns:
        The path written.

    Raises:
        UserError: if the mask does not have the scan's size.
    """
    source, target = Path(scan), Path(path)
    if is_picture(source.name):
        with Image.open(source) as picture:
            _check_size(mask, (*picture.size, 1), source)
        return _write_picture(mask[..., 0] * np.uint8(255), target)
    if source.name.lower().endswith(ITK_SUFFIXES):
        _check_size(mask, (*itk_size(source), 1)[:3], source)
        return write_itk_bytes(mask, source, target)
    _check_size(mask, (*read_header(source).header.get_data_shape(), 1)[:3], source)
    return write_bytes(header_like(source, mask.shape), lambda k: mask[..., k], target, _MASK)


def write_scan_mask(mask: NDArray[np.uint8], scan: Scan, path: Path) -> Path:
    """Write a mask as `write_mask` does; for a DICOM series as NIfTI in scanner coordinates.

    Args:
        mask: (X, Y, Z) in the scan's stored orientation, values in {0, 1}.
        scan: what was segmented.
        path: as `mask_path` gives it.

    Returns:
        The path written.

    Raises:
        UserError: if the mask does not have the scan's size.
    """
    return _write_on_grid(mask * np.uint8(255) if scan.picture else mask, scan, path, _MASK)


def write_probability(levels: NDArray[np.uint8], scan: Scan, path: Path) -> Path:
    """Write probabilities in 256 steps beside the mask, one byte per voxel.

    NIfTI gets the slope 1/255, so that its readers give 0 to 1, off by 1/510 at most. NRRD,
    MetaImage and PNG have no slope: there the values are 0 to 255. See `write_scan_mask` for what
    is returned and raised.

    Args:
        levels: (X, Y, Z) in the scan's stored orientation, 255 times the probability, rounded.
        scan: what was segmented.
        path: as `probability_path` gives it.
    """
    return _write_on_grid(levels, scan, path, _PROBABILITY, slope=1 / 255)


def write_classes(classes: NDArray[np.uint8], scan: Scan, path: Path) -> Path:
    """Write classes as `write_scan_mask` writes masks; for 2-D images a palette PNG 0, 1, 2.

    Args:
        classes: (X, Y, Z) in the scan's stored orientation, values in {0, 1, 2}.
        scan: what was classified.
        path: as `classes_path` gives it.

    Returns:
        The path written.

    Raises:
        UserError: if the classes do not have the scan's size.
    """
    if not scan.picture:
        return _write_on_grid(classes, scan, path, _CLASSES, highest=2)
    _check_size(classes, scan.values.shape, scan.path)
    return _write_picture(classes[..., 0], path, _PALETTE)


def _write_on_grid(
    values: NDArray[np.uint8], scan: Scan, path: Path, purpose: str, slope: float = 1.0, highest: float = 1.0
) -> Path:
    shape = scan.values.shape
    _check_size(values, shape, scan.path)
    if scan.picture:
        return _write_picture(values[..., 0], path)
    if scan.kind == "itk":
        return write_itk_bytes(values, scan.path, path)
    header = header_like(scan.path, shape) if scan.kind == "nifti" else header_from_affine(scan.affine, shape)
    return write_bytes(header, lambda k: values[..., k], path, purpose, slope, highest)


def mask_path(folder: Path, scan: Scan) -> Path:
    """Return a mask's path: the scan's format, PNG for 2-D images, else NIfTI."""
    return folder / f"infection{'.nii.gz' if scan.kind in ('dicom', 'memory') else mask_suffix(scan.path)}"


def mask_suffix(scan: Path) -> str:
    """Return the extension of a file's mask: .nrrd, .mha, .png or .nii.gz."""
    suffix = scan.suffix.lower()
    if suffix in ITK_SUFFIXES:
        return ".nrrd" if suffix in NRRD_SUFFIXES else ".mha"
    return ".png" if is_picture(scan.name) else ".nii.gz"


def probability_path(folder: Path, scan: Scan) -> Path:
    """Where the probabilities of a scan go: the format of its mask."""
    return folder / mask_path(folder, scan).name.replace("infection", "probability")


def classes_path(folder: Path, scan: Scan) -> Path:
    """Where the classes of a scan go: the format of its mask."""
    return folder / mask_path(folder, scan).name.replace("infection", "classes")


def _write_picture(values: NDArray[np.uint8], path: Path, palette: Sequence[int] | None = None) -> Path:
    """Write (columns, rows) as a grey picture, or as indices of a palette."""
    pixels = Image.fromarray(np.ascontiguousarray(values.T))
    if palette is not None:
        pixels.putpalette(palette)
    return write_atomic(path, lambda temporary: pixels.save(temporary))


def _check_size(mask: NDArray[np.uint8], size: tuple[int, ...], scan: Path) -> None:
    if mask.shape != size:
        raise UserError(f"{scan}: has {size} voxels, its mask {mask.shape}; expected: equal sizes")


class MaskWriter(ImageWriter):
    """`write_mask` for MONAI's `SaveImaged`."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self._scan = ""

    def set_data_array(self, data_array: Any, channel_dim: int | None = 0, **_: Any) -> None:
        """Take the mask (1, X, Y, Z), on whatever device it lies."""
        self.data_obj = convert_to_numpy(data_array, dtype=np.uint8)[0]

    def set_metadata(self, meta_dict: Mapping[str, Any] | None = None, resample: bool = False, **_: Any) -> None:
        """Take the name of the scan; its header is read again when the mask is written."""
        self._scan = str((meta_dict or {})["filename_or_obj"])

    def write(self, filename: str, verbose: bool = False, **_: Any) -> None:
        """Write the mask to `filename`, with the ending of the scan's format."""
        path = self._place(Path(filename))
        write_mask(self.data_obj, self._scan, path)
        logger.info(f"{self._scan}: mask {path}, {int(self.data_obj.sum())} voxels of infection")

    def _place(self, path: Path) -> Path:
        """Return MONAI's path with the mask's extension, shortened to a valid name."""
        name = path.name.removesuffix(".nii.gz") + mask_suffix(Path(self._scan))
        stem = scan_name(Path(self._scan))
        stem = stem if name.startswith(stem) else name.split(".")[0]
        return path.with_name(fit_name(stem, name[len(stem) :]))
