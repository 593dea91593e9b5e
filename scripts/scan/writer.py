"""Masks on the scan's own grid: NIfTI with the scan's header, PNG for a picture."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import ImageWriter
from numpy.typing import NDArray
from PIL import Image

from scripts.errors import UserError
from scripts.files import write_atomic
from scripts.transforms.geometry import is_picture

logger = logging.getLogger(__name__)


def write_mask(mask: NDArray[np.uint8], scan: str | Path, path: str | Path) -> Path:
    """Writes a mask with the geometry of the scan that it belongs to.

    A NIfTI mask has the scan's shape, affine, sform and qform with their codes, and units; MONAI's own writer
    changes the codes and squeezes a one-slice volume. Header extensions, which may hold a patient's name, are left
    out.

    Args:
        mask: (X, Y, Z) in the scan's stored orientation, values in {0, 1}.
        scan: the file that was segmented, NIfTI or a picture.
        path: the mask; a picture's mask becomes PNG, 0 and 255.

    Returns:
        The path written.

    Raises:
        UserError: if the mask does not have the scan's size.
    """
    if is_picture(str(scan)):
        with Image.open(scan) as picture:
            _check_size(mask, (*picture.size, 1), scan)
        pixels = Image.fromarray(np.ascontiguousarray(mask[..., 0].T) * np.uint8(255))
        return write_atomic(path, lambda temporary: pixels.save(temporary))
    source = nib.load(scan)
    _check_size(mask, (*source.shape, 1, 1)[:3], scan)
    header = source.header.copy()
    header.extensions.clear()
    header.set_data_dtype(np.uint8)
    header["cal_min"], header["cal_max"] = 0, 1
    header["descrip"] = b"infection mask: 0 background, 1 infection"
    image = type(source)(mask.reshape(source.shape), header.get_best_affine(), header)
    return write_atomic(path, lambda temporary: nib.save(image, temporary))


def _check_size(mask: NDArray[np.uint8], size: tuple[int, ...], scan: str | Path) -> None:
    if mask.shape != size:
        raise UserError(f"{scan}: has {size} voxels, its mask {mask.shape}; accepted: equal sizes")


class MaskWriter(ImageWriter):
    """`write_mask` for MONAI's `SaveImaged`."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self._scan = ""

    def set_data_array(self, data_array: Any, channel_dim: int | None = 0, **_: Any) -> None:
        """Takes the mask (1, X, Y, Z)."""
        self.data_obj = np.asarray(data_array).astype(np.uint8)[0]

    def set_metadata(self, meta_dict: Mapping[str, Any] | None = None, resample: bool = False, **_: Any) -> None:
        """Takes the name of the scan; its header is read again when the mask is written."""
        self._scan = str((meta_dict or {})["filename_or_obj"])

    def write(self, filename: str, verbose: bool = False, **_: Any) -> None:
        """Writes the mask to `filename`, as PNG if the scan is a picture."""
        path = Path(filename)
        if is_picture(self._scan):
            path = path.with_name(path.name.removesuffix(".nii.gz") + ".png")
        write_mask(self.data_obj, self._scan, path)
        logger.info(f"{self._scan}: mask {path}, {int(self.data_obj.sum())} voxels of infection")
