"""Check that a label has its image's voxels at the same places, in any stored order."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

TOLERANCE_MM = 1e-2  # how far a label's corner may lie off its image's: what rounded headers reach


@dataclass(frozen=True)
class Grid:
    """Size and place of a volume, or the size of a picture."""

    name: str  # the file, what an error names
    shape: tuple[int, ...]  # stored axes (x, y, z) of a volume, (width, height) of a picture
    affine: NDArray[np.float64] | None  # (4, 4) voxel index to mm, RAS; None for a picture

    @property
    def slices(self) -> int:
        """Number of slices along the stored third axis; 1 for a picture."""
        return self.shape[2] if len(self.shape) > 2 else 1


def check_belongs(label: Grid, image: Grid, tolerance_mm: float = TOLERANCE_MM) -> None:
    """Raise UserError for a label whose voxels are not those of its image; any axis order is fine.

    Corresponding corner voxels may lie `tolerance_mm` apart.
    """
    if label.affine is None or image.affine is None or (len(label.shape), len(image.shape)) != (3, 3):
        _check_kind(label, image)
        return
    shape, affine = _turned(label.shape, label.affine)
    wanted_shape, wanted_affine = _turned(image.shape, image.affine)
    if shape != wanted_shape:
        raise UserError(
            f"{label.name}: has {_size(shape)} voxels (left-right, front-back, head-foot); expected: those of "
            f"{image.name}, {_size(wanted_shape)}"
        )
    distance = corner_distance(shape, affine, wanted_affine)
    if not distance <= tolerance_mm:
        raise UserError(
            f"{label.name}: lies up to {distance:.4g} mm off its image, affine {_rows(label.affine)}; expected: that "
            f"of {image.name}, {_rows(image.affine)}, within {tolerance_mm:.4g} mm"
        )


def _check_kind(label: Grid, image: Grid) -> None:
    if label.affine is None and image.affine is None and label.shape == image.shape:
        return
    found, wanted = (f"{'picture' if one.affine is None else 'volume'} of {_size(one.shape)}" for one in (label, image))
    raise UserError(f"{label.name}: a {found}; expected: a {wanted} as {image.name}")


def _turned(shape: tuple[int, ...], affine: NDArray[np.float64]) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Size and affine with axes turned to RAS by permutation and flips, as MONAI does."""
    turn = nib.io_orientation(affine)
    order = np.argsort(turn[:, 0])
    return tuple(int(shape[axis]) for axis in order), affine @ nib.orientations.inv_ornt_aff(turn, shape)


def corner_distance(shape: Sequence[int], first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the largest distance in mm between the corner voxels of a volume under two affines.

    >>> shifted = np.eye(4)
    >>> shifted[:3, 3] = 3.0, 4.0, 0.0
    >>> corner_distance((10, 10, 10), np.eye(4), shifted)
    5.0
    """
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, length - 1) for length in shape))])
    return float(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max())


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _rows(affine: NDArray[np.float64]) -> str:
    return np.array2string(affine[:3], precision=4, suppress_small=True, separator=", ").replace("\n", "")
