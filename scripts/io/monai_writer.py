"""The writer of masks as MONAI names it in configs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageWriter
from monai.utils import convert_to_numpy

from ..files import fit_name
from .dicom.recognition import is_dicom
from .masks import mask_suffix, sized, write_mask
from .reading import scan_name
from .volume import Affine

logger = logging.getLogger(__name__)


class MaskWriter(ImageWriter):
    """`write_mask` for MONAI's `SaveImaged`."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self._scan = Path()
        self._affine: Affine = np.eye(4)

    def set_data_array(self, data_array: Any, channel_dim: int | None = 0, **_: Any) -> None:
        """Take the mask (1, X, Y, Z), on whatever device it lies."""
        self.data_obj = convert_to_numpy(data_array, dtype=np.uint8)[0]

    def set_metadata(self, meta_dict: Mapping[str, Any] | None = None, resample: bool = False, **_: Any) -> None:
        """Take name and affine of the scan; the mask is written with the header of its file."""
        meta = meta_dict or {}
        self._scan = Path(str(meta["filename_or_obj"]))
        self._affine = convert_to_numpy(meta.get("original_affine", np.eye(4))).astype(np.float64)

    def write(self, filename: str, verbose: bool = False, **_: Any) -> None:
        """Write the mask to `filename`, with the ending of the scan's format."""
        path, mask = self._place(Path(filename)), self.data_obj
        dicom = is_dicom(self._scan)
        write_mask(mask, sized(self._scan, "dicom", mask.shape, self._affine) if dicom else self._scan, path)
        logger.info(f"{self._scan}: mask {path}, {int(mask.sum())} voxels of infection")

    def _place(self, path: Path) -> Path:
        """Return MONAI's path with the mask's extension, shortened to a valid name."""
        name = path.name.removesuffix(".nii.gz") + mask_suffix(self._scan)
        stem = scan_name(self._scan)
        given = stem if name.startswith(stem) else self._scan.stem  # MONAI takes the last part of a folder's name off
        given = given if name.startswith(given) else name.split(".")[0]
        return path.with_name(fit_name(stem, name[len(given) :]))
