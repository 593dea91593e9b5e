"""A synthetic thorax in HU with COVID-19-like infection.

It stands in for real CT where none may be downloaded: demo, tests, dry runs. A network must learn
something to segment it: consolidation has the HU of vessels and chest wall, ground-glass that of
harmless densities, so that no intensity window finds the infection (a test searches for the best
one). It says nothing about clinical quality.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .anatomy import draw_surfaces, paint_body
from .grid import Floats, VoxelGrid, coverage, paint
from .lungs import LEFT, RIGHT, paint_airways, paint_infection, paint_vessels, parenchyma


@dataclass(frozen=True)
class Phantom:
    """One synthetic case; arrays are [x, y, z] in LPS.

    Attributes:
        image: HU, int16, in [-1024, 3071].
        infection: 0 or 1, uint8.
        lungs: 1 left lung, 2 right lung, infection included, uint8 (the codes of Zenodo 3757476).
        affine: voxel index to mm in NIfTI's RAS+ world, (4, 4).
    """

    image: NDArray[np.int16]
    infection: NDArray[np.uint8]
    lungs: NDArray[np.uint8]
    affine: NDArray[np.float64]


def make_phantom(
    seed: int | Sequence[int],
    shape: tuple[int, int, int] = (160, 160, 32),
    spacing: tuple[float, float, float] = (2.2, 2.2, 8.0),
    infected: bool = True,
) -> Phantom:
    """Draw one patient. The same arguments give the same arrays.

    Shape times spacing is the field of view; the thorax is about 310 x 220 x 240 mm, and what does
    not fit is cut off as in a real scan. With `infected=False` the same patient is drawn without
    infection, all else being equal.

    Args:
        seed: what `numpy.random.default_rng` takes.
        shape: voxels along x, y, z.
        spacing: voxel size in mm.
        infected: whether there is infection, of about 1 to 35 percent of the lungs.

    Raises:
        ValueError: if there is no lung in the field of view.
    """
    rng = np.random.default_rng(seed)
    infection_rng = rng.spawn(1)[0]
    sx, sy, sz = rng.uniform(0.94, 1.06, 3)
    dx, dy, dz = rng.uniform(-6, 6, 3)
    grid = VoxelGrid(shape, spacing, scale=(sx, sy, sz), offset=(dx, dy, dz))
    surfaces = draw_surfaces(grid, rng)
    lung_fraction = coverage(surfaces.lungs)
    lungs = np.where(lung_fraction >= 0.5, np.where(grid.x > 0, LEFT, RIGHT), 0).astype(np.uint8)
    if not lungs.any():
        raise ValueError(f"no lung in the field of view of shape {shape} and spacing {spacing} mm")
    image = paint_body(grid, surfaces, rng)
    tissue = parenchyma(grid, surfaces, rng)
    mask = np.zeros(shape, bool)
    if infected:
        marked = paint_infection(grid, tissue, surfaces, lungs, infection_rng)
        mask = _without_specks(grid, marked & (lungs > 0))
    paint(image, tissue, lung_fraction)
    paint_vessels(grid, image, lungs, rng)
    paint_airways(grid, image, lungs, rng)
    return Phantom(_scan(grid, image, rng), mask.astype(np.uint8), lungs, _affine(grid))


def _without_specks(grid: VoxelGrid, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop what no radiologist would outline: connected parts below 300 mm^3."""
    parts, _ = ndimage.label(mask)
    volumes = np.bincount(parts.ravel()) * np.prod(grid.spacing)
    volumes[0] = 0
    return (volumes >= 300)[parts]


def _scan(grid: VoxelGrid, image: Floats, rng: np.random.Generator) -> NDArray[np.int16]:
    """Add what the scanner adds: blur of its kernel, correlated noise of 12 to 30 HU."""
    in_plane = np.array([1, 1, 0]) / grid.spacing
    image = ndimage.gaussian_filter(image, 1.1 * in_plane)
    grain = ndimage.gaussian_filter(rng.standard_normal(grid.shape, dtype=np.float32), 0.9 * in_plane)
    image += rng.uniform(12, 30) * grain / grain.std()
    return np.clip(np.rint(image), -1024, 3071).astype(np.int16)


def _affine(grid: VoxelGrid) -> NDArray[np.float64]:
    """Return the centre of the volume at the world's origin; LPS voxels in RAS+ coordinates."""
    affine = np.diag([-grid.spacing[0], -grid.spacing[1], grid.spacing[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(grid.shape) - 1) / 2)
    return affine
