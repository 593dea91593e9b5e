"""Whether a label belongs to its image: the same voxels at the same places, stored in whatever order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from scripts.errors import UserError

TOLERANCE_MM = 1e-2
"""How far a label's corner may lie off its image's: what rounded headers reach."""


@dataclass(frozen=True)
class Grid:
    """Size and place of a volume.

    Attributes:
        name: the file, what an error names.
        shape: stored axes (x, y, z).
        affine: (4, 4) voxel index to mm, RAS.
    """

    name: str
    shape: tuple[int, ...]
    affine: NDArray[np.float64]

    def turned(self) -> Grid:
        """Returns the grid with its axes turned to RAS, as far as permutations and flips go."""
        turn = nib.io_orientation(self.affine)
        order = np.argsort(turn[:, 0])
        shape = tuple(int(self.shape[axis]) for axis in order)
        return Grid(self.name, shape, self.affine @ nib.orientations.inv_ornt_aff(turn, self.shape))


def check_belongs(label: Grid, image: Grid, tolerance_mm: float = TOLERANCE_MM) -> None:
    """Refuses a label whose voxels are not those of its image; another stored order of axes is fine.

    Args:
        label: the label's grid.
        image: the image's grid.
        tolerance_mm: largest distance between corresponding corner voxels.

    Raises:
        UserError: with both sizes, or both affines and the distance.
    """
    if len(label.shape) != 3 or len(image.shape) != 3:
        raise UserError(f"{label.name}: size {_size(label)}; expected: one volume, {_size(image)} as {image.name}")
    found, wanted = label.turned(), image.turned()
    if found.shape != wanted.shape:
        raise UserError(f"{label.name}: has {label.shape} voxels; expected: those of {image.name}, {image.shape}")
    distance = corner_distance(found.shape, found.affine, wanted.affine)
    if not distance <= tolerance_mm:
        raise UserError(
            f"{label.name}: lies up to {distance:.4g} mm off {image.name}, affine {_rows(label)}; expected: "
            f"{_rows(image)}, within {tolerance_mm:g} mm"
        )


def corner_distance(shape: Sequence[int], first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Returns the largest distance in mm between the corner voxels of a volume under two affines.

    >>> shifted = np.eye(4)
    >>> shifted[:3, 3] = 3.0, 4.0, 0.0
    >>> corner_distance((10, 10, 10), np.eye(4), shifted)
    5.0
    """
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, length - 1) for length in shape))])
    return float(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max())


def _size(grid: Grid) -> str:
    return " x ".join(map(str, grid.shape))


def _rows(grid: Grid) -> str:
    return np.array2string(grid.affine[:3], precision=4, suppress_small=True, separator=", ").replace("\n", "")
