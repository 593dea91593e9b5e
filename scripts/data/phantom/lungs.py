"""What fills the phantom's lungs: parenchyma with its harmless densities, and infection.

The harmless ones (gravity, dependent atelectasis, heart and breathing motion, mosaic attenuation,
fissures) have the HU of ground-glass on purpose: only shape, texture and place tell them from
infection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .anatomy import Surfaces
from .grid import Floats, VoxelGrid, ellipsoid, noise, paint


def parenchyma(grid: VoxelGrid, surfaces: Surfaces, rng: np.random.Generator) -> Floats:
    """Lung tissue without infection, in HU, defined on the whole grid."""
    hu = rng.uniform(-885, -835) + rng.uniform(0.3, 0.7) * grid.y  # supine: blood sinks to the back
    hu = hu + 14 * noise(rng, grid, 4) + rng.uniform(10, 35) * noise(rng, grid, 22)
    hu += _motion(surfaces, rng) + _fissures(grid)
    return np.minimum(hu + _dependent(grid, surfaces, rng), -150).astype(np.float32)


def _dependent(grid: VoxelGrid, surfaces: Surfaces, rng: np.random.Generator) -> Floats:
    """Add dependent atelectasis in HU: a band along the posterior pleura that fades."""
    depth = np.maximum(-surfaces.cavity, 0)
    band = np.exp(-((depth / rng.uniform(10, 20)) ** 2)) / (1 + np.exp(-(grid.y - rng.uniform(35, 55)) / 6))
    sides = np.where(grid.x > 0, rng.uniform(0.5, 1), rng.uniform(0.5, 1))
    low = 1 / (1 + np.exp((grid.z - rng.uniform(-40, 80)) / 15))
    return rng.uniform(200, 450) * band * sides * low


def _motion(surfaces: Surfaces, rng: np.random.Generator) -> Floats:
    """Grey seams along the beating heart and above the moving diaphragm, in HU to add."""
    beside = np.exp(-np.maximum(surfaces.heart, 0) / rng.uniform(3, 7))
    above = np.exp(-np.maximum(-surfaces.diaphragm, 0) / rng.uniform(5, 12))
    return rng.uniform(60, 260) * beside + rng.uniform(80, 320) * above


def _fissures(grid: VoxelGrid) -> Floats:
    """Add the oblique fissures in HU: sheets about 1 mm thick from high behind to low in front."""
    sheet = grid.z + 4 - 0.9 * grid.y + 0.0016 * grid.x**2
    blur = 0.5 * float(grid.step[2]) + 1
    fraction: Floats = np.clip(1 - np.abs(sheet) / blur, 0, 1) / blur
    return 500 * fraction


@dataclass(frozen=True)
class Infection:
    """Infection on the grid.

    Attributes:
        ground_glass: fraction of ground-glass in each voxel of lung, in [0, 1].
        consolidation: the same for consolidation, painted over the ground-glass.
        ground_glass_hu: HU of the ground-glass.
        consolidation_hu: HU of the consolidation.
    """

    ground_glass: Floats
    consolidation: Floats
    ground_glass_hu: Floats
    consolidation_hu: Floats

    def paint(self, tissue: Floats) -> None:
        """Put the infection into lung tissue, in place."""
        paint(tissue, self.ground_glass_hu, self.ground_glass)
        paint(tissue, self.consolidation_hu, self.consolidation)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Where infection takes at least half of the voxel."""
        return np.maximum(self.ground_glass, self.consolidation) >= 0.5


def grow_infection(
    grid: VoxelGrid, surfaces: Surfaces, lungs: NDArray[np.uint8], rng: np.random.Generator
) -> Infection:
    """Grow patches of ground glass, some consolidated, over about 1 to 35 % of the lungs."""
    fraction = float(np.exp(rng.uniform(np.log(0.01), np.log(0.35))))
    count = int(rng.integers(2, 6) + 20 * fraction)
    volumes = 1.5 * fraction * (lungs > 0).sum() * np.prod(grid.step) * rng.dirichlet(np.full(count, 1.5))
    rough = 5 * noise(rng, grid, 11) + 2.5 * noise(rng, grid, 4)
    haze = np.full(grid.shape, -np.inf, np.float32)
    solid = haze.copy()
    for centre, volume in zip(_centres(grid, surfaces, lungs, count, rng), volumes, strict=True):
        radius = float(np.clip(np.cbrt(0.75 * volume / np.pi), 6, 60))
        haze = np.maximum(haze, _patch(grid, centre, radius, rng))
        if rng.random() < 0.45:
            core = centre * (1.04, 1.06, 1)  # nearer to the pleura
            solid = np.maximum(solid, _patch(grid, core, rng.uniform(0.4, 0.75) * radius, rng))
    soft = rng.uniform(4, 9)
    return Infection(
        ground_glass=np.clip(0.5 + (haze + rough) / soft, 0, 1).astype(np.float32),
        consolidation=np.clip(0.5 + (solid + 0.7 * rough) / 4, 0, 1).astype(np.float32),
        ground_glass_hu=_ground_glass_hu(grid, rng),
        consolidation_hu=(rng.uniform(-50, 35) + 22 * noise(rng, grid, 6)).astype(np.float32),
    )


def _ground_glass_hu(grid: VoxelGrid, rng: np.random.Generator) -> Floats:
    hu = rng.uniform(-610, -450) + 60 * noise(rng, grid, 20) + 80 * noise(rng, grid, 2.5)  # crazy paving
    return np.clip(hu, -760, -280).astype(np.float32)


def _centres(
    grid: VoxelGrid, surfaces: Surfaces, lungs: NDArray[np.uint8], count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw centres (N, 3) in the lungs: rather near the pleura, behind and below."""
    inside = lungs > 0
    points = grid.points(inside)
    odds = np.exp(surfaces.cavity[inside] / 16 + points[:, 1] / 60 - points[:, 2] / 120)
    return points[rng.choice(len(points), size=count, p=odds / odds.sum())]


def _patch(grid: VoxelGrid, centre: NDArray[np.float64], radius: float, rng: np.random.Generator) -> Floats:
    """Return a level function of an ellipsoid of the volume of a ball of `radius` mm."""
    stretch = np.exp(rng.normal(0, 0.2, 3))
    radii = radius * stretch / np.cbrt(stretch.prod())
    x, y, z = (float(value) for value in centre)
    a, b, c = (float(value) for value in radii)
    return -ellipsoid(grid, (x, y, z), (a, b, c), turn=float(rng.uniform(0, np.pi)))
