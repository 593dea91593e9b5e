"""Whether a NIfTI file that was made from a DICOM series puts each slice where its header does."""

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from ...errors import UserError

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_ROUNDING_MM = 0.1  # what some scanners round positions to


def check_places(series: Path, scan: str) -> None:
    """Refuse a series that is no even stack, because one affine would misplace its slices.

    Args:
        series: folder of the DICOM files, one a slice; a single file of several frames is not
            looked at.
        scan: the NIfTI file that was made of them.

    Raises:
        UserError: for slices that are missing, doubled, unevenly spaced or shifted by a tilted
            gantry.
    """
    files = sorted(series.iterdir())
    image = nib.load(scan)
    if len(files) == 1:
        return
    if len(files) != image.shape[2]:
        found = f"{len(files)} files, of which {image.shape[2]} make a volume"
        raise UserError(f"{series.name}: {found}; expected: one stack of evenly spaced slices")
    places = _places(files)
    indices = (np.linalg.inv(image.affine) @ np.c_[places, np.ones(len(places))].T).T
    wanted = image.affine @ np.array([(0, 0, k, 1) for k in range(len(files))], float).T
    distance = float(np.linalg.norm(places[np.argsort(indices[:, 2])] - wanted.T[:, :3], axis=1).max())
    step = float(np.linalg.norm(image.affine[:3, 2]))
    if distance > max(_ROUNDING_MM, 0.01 * step):
        found = f"slices lie up to {distance:.3g} mm off an even stack (one is missing, doubled, or the gantry tilted)"
        raise UserError(f"{series.name}: {found}; expected: evenly spaced slices; `segment` says more")


def _places(files: list[Path]) -> NDArray[np.float64]:
    """Where the first voxel of each slice lies, (n, 3), mm, RAS."""
    headers = (dcmread(file, specific_tags=["ImagePositionPatient"], stop_before_pixels=True) for file in files)
    try:
        return np.array([header.ImagePositionPatient for header in headers], float) * _LPS_TO_RAS
    except (AttributeError, ValueError) as error:
        raise UserError(f"{files[0].parent.name}: {error}; expected: slices with ImagePositionPatient") from None
