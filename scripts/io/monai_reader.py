"""Scans for MONAI's `LoadImaged`: every workflow reads what `segment` reads, as it does."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from numpy.typing import NDArray

from ..errors import UserError
from .dicom.recognition import is_dicom
from .reading import VOLUME_SUFFIXES, read_scan
from .volume import Scan

logger = logging.getLogger(__name__)

_AGAINST_THE_HEADER = ("forms_differ", "voxel_offset", "bytes_behind", "quaternion_scaled")
"""Findings that say which of two statements of a header was believed; the other findings are those
of `segment`."""


class ScanReader(ImageReader):
    """Read NIfTI, NRRD, MetaImage and DICOM as (X, Y, Z) in HU, with an affine in mm (RAS)."""

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Tell whether all names end as scans do, or stand for DICOM."""
        paths = [Path(name) for name in ensure_tuple(filename)]
        return all(path.name.lower().endswith(VOLUME_SUFFIXES) or is_dicom(path) for path in paths)

    def read(self, data: Sequence[PathLike] | PathLike, **_: Any) -> Scan:
        """Read one file, or one folder or .zip of DICOM; errors as `read_scan`."""
        paths = [Path(name) for name in ensure_tuple(data)]
        if len(paths) != 1:
            raise UserError(f"{', '.join(map(str, paths))}: {len(paths)} files; expected: one scan in one file")
        scan = _read_dicom(paths[0]) if is_dicom(paths[0]) else read_scan(paths[0])
        for note in scan.notes:
            if scan.kind == "dicom" or note.code in _AGAINST_THE_HEADER:
                logger.warning(f"{paths[0]}: {note.text}")
        return scan

    def get_data(self, img: Scan) -> tuple[NDArray[Any], dict[str, Any]]:
        """Return the values (X, Y, Z) and the metadata that MONAI's transforms look at."""
        meta = {
            MetaKeys.AFFINE: img.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: img.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(img.values.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: math.nan,  # MONAI's word for "none"
        }
        named: dict[str, Any] = {"padding": (img.padding.low, img.padding.high)} if img.padding else {}
        named["voxel_size_known"] = img.voxel_size_known
        return img.real(), {str(key.value): value for key, value in meta.items()} | named


def _read_dicom(path: Path) -> Scan:
    from .dicom.archive import unpacked  # the environment of MONAI Label has an older pydicom
    from .dicom.reading import read_dicom

    with unpacked(path) as place:
        return read_dicom(place)
