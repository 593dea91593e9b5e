"""Put the phantom on a voxel grid: coordinates, partial volume, tubes, correlated noise."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.floating[Any]]

_POINTS_PER_VOXEL = 64  # a tube that fills a voxel puts this many points into it
_PLASTIC = (0.8191725, 0.6710436, 0.5497005)  # additive recurrence in three dimensions: even, not random


@dataclass(frozen=True)
class VoxelGrid:
    """Voxel centres in mm of the standard thorax, the scanner's mm divided by `scale`.

    `x`, (X, 1, 1), runs to the patient's left, `y`, (1, Y, 1), to posterior, `z`, (1, 1, Z), to
    superior.

    Attributes:
        shape: number of voxels along x, y, z.
        spacing: voxel size in mm of the scanner.
        scale: size of this patient relative to the standard thorax, along x, y, z.
        offset: where the middle of the field of view lies, in mm of the standard thorax.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @cached_property
    def step(self) -> NDArray[np.float64]:
        """Return the voxel size."""
        return np.asarray(self.spacing) / np.asarray(self.scale)

    def _axis(self, axis: int) -> Floats:
        centre = (self.shape[axis] - 1) / 2
        line = (np.arange(self.shape[axis]) - centre) * self.step[axis] + self.offset[axis]
        return line.astype(np.float32).reshape([-1 if other == axis else 1 for other in range(3)])

    x = cached_property(lambda self: self._axis(0))
    y = cached_property(lambda self: self._axis(1))
    z = cached_property(lambda self: self._axis(2))

    def index(self, points: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the nearest voxel of each point (N, 3); may lie outside the grid."""
        centre = (np.asarray(self.shape) - 1) / 2
        return np.rint((points - self.offset) / self.step + centre).astype(np.intp)

    def points(self, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the coordinates (N, 3) of the voxels in a mask."""
        centre = (np.asarray(self.shape) - 1) / 2
        return (np.argwhere(mask) - centre) * self.step + self.offset


def coverage(level: Floats) -> Floats:
    """Return each voxel's fraction inside of the surface `level = 0` (negative inside).

    The surface is taken as a plane within the voxel, so that thick slices blur slanted surfaces and
    leave upright ones sharp, as in a real scan.
    """
    per_voxel = np.zeros_like(level)
    for axis in range(level.ndim):
        if level.shape[axis] > 1:
            per_voxel += np.abs(np.gradient(level, axis=axis))
    return np.clip(0.5 - level / np.maximum(per_voxel, 1e-3), 0, 1)


def smooth_max(first: Floats, second: Floats, radius: float = 8.0) -> Floats:
    """Return the maximum of two level functions, edges rounded over about `radius` mm."""
    return 0.5 * (first + second + np.sqrt((first - second) ** 2 + radius**2))


def ellipsoid(
    grid: VoxelGrid, centre: tuple[float, float, float], radii: tuple[float, float, float], turn: float = 0.0
) -> Floats:
    """Level function, in about mm, of an ellipsoid turned by `turn` radians about the z axis."""
    x, y, z = grid.x - centre[0], grid.y - centre[1], grid.z - centre[2]
    across, along = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    norm = np.sqrt((across / radii[0]) ** 2 + (along / radii[1]) ** 2 + (z / radii[2]) ** 2)
    return ((norm - 1) * min(radii)).astype(np.float32)


def cylinder(grid: VoxelGrid, centre: tuple[float, float], radii: tuple[float, float]) -> Floats:
    """Return the level function (X, Y, 1), in about mm, of an upright elliptic cylinder."""
    norm = np.hypot((grid.x - centre[0]) / radii[0], (grid.y - centre[1]) / radii[1])
    return ((norm - 1) * min(radii)).astype(np.float32)


def paint(image: Floats, hu: float | Floats, fraction: Floats) -> None:
    """Replace `fraction` of every voxel by material of `hu`, in place."""
    image += fraction * (hu - image)


def noise(rng: np.random.Generator, grid: VoxelGrid, length: float) -> Floats:
    """Draw Gaussian noise of standard deviation 1, smoothed with a sigma of `length` mm."""
    field = rng.standard_normal(grid.shape, dtype=np.float32)
    field = ndimage.gaussian_filter(field, length / np.asarray(grid.spacing), mode="wrap", truncate=3)
    return field / max(float(field.std()), 1e-6)


def tubes(
    grid: VoxelGrid, starts: NDArray[np.float64], ends: NDArray[np.float64], radii: NDArray[np.float64]
) -> Floats:
    """Return the fraction of each voxel inside a set of straight tubes, in [0, 1].

    The tubes are filled evenly with points and the points are counted in voxels, so that a vessel
    thinner than a voxel has the right partial volume. Ends (N, 3) and radii (N,) are in mm.
    """
    length = np.linalg.norm(ends - starts, axis=1)
    counts = np.ceil(np.pi * radii**2 * length / np.prod(grid.step) * _POINTS_PER_VOXEL).astype(int)
    tube = np.repeat(np.arange(len(counts)), counts)
    rank = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    along, out, turn = ((0.5 + rank * step) % 1 for step in _PLASTIC)
    side, up = _frame((ends - starts) / np.maximum(length, 1e-6)[:, None])
    reach = (radii[tube] * np.sqrt(out))[:, None]
    angle = 2 * np.pi * turn[:, None]
    points = starts[tube] + along[:, None] * (ends - starts)[tube]
    points += reach * (np.cos(angle) * side[tube] + np.sin(angle) * up[tube])
    index = grid.index(points)
    index = index[((index >= 0) & (index < grid.shape)).all(axis=1)]
    counts = np.bincount(np.ravel_multi_index(tuple(index.T), grid.shape), minlength=int(np.prod(grid.shape)))
    return np.minimum(counts / _POINTS_PER_VOXEL, 1).astype(np.float32).reshape(grid.shape)


def _frame(axis: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Return two unit vectors across each axis (N, 3)."""
    helper = np.where(np.abs(axis[:, :1]) < 0.7, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    side = np.cross(axis, helper)
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-6)
    return side, np.cross(axis, side)
