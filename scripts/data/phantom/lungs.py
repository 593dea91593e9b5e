"""What fills the phantom's lungs: parenchyma, infection, vessels and airways.

The harmless densities of the parenchyma (gravity, dependent atelectasis, heart and breathing
motion, mosaic attenuation, fissures) have the HU of ground-glass on purpose: only shape, texture
and place tell them from infection.
"""

import numpy as np
from numpy.typing import NDArray

from .anatomy import BLOOD, SIDES, Surfaces
from .grid import Floats, VoxelGrid, ellipsoid, noise, paint, tubes

LEFT, RIGHT = 1, 2  # codes of the lung masks of Zenodo 3757476
_THRIFT = 0.35  # of the trees: 0 gives the shortest tree, 1 the shortest ways

Tree = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Straight segments of a branching tree: starts (N, 3), ends (N, 3) and radii (N,), in mm."""


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


def paint_infection(
    grid: VoxelGrid, tissue: Floats, surfaces: Surfaces, lungs: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Paint patches of ground glass, some consolidated, over 1 to 35 % of the lungs, in place.

    Returns:
        Where infection takes at least half of the voxel, of lung or not.
    """
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
    ground_glass = np.clip(0.5 + (haze + rough) / soft, 0, 1).astype(np.float32)
    consolidation = np.clip(0.5 + (solid + 0.7 * rough) / 4, 0, 1).astype(np.float32)
    hu = rng.uniform(-610, -450) + 60 * noise(rng, grid, 20) + 80 * noise(rng, grid, 2.5)  # crazy paving
    paint(tissue, np.clip(hu, -760, -280).astype(np.float32), ground_glass)
    paint(tissue, (rng.uniform(-50, 35) + 22 * noise(rng, grid, 6)).astype(np.float32), consolidation)
    return np.maximum(ground_glass, consolidation) >= 0.5


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


def grow_tree(root: NDArray[np.float64], targets: NDArray[np.float64], twig: float) -> Tree:
    """Grow a tree from `root` through all `targets` (N, 3).

    Targets join in the order of their distance from the root, each where the added length plus
    `_THRIFT` times the way to the root is least. Radii follow Murray's law, r^3 summed over the
    branches; `twig` is that of the tree's ends. Everything is in mm.
    """
    order = np.argsort(np.linalg.norm(targets - root, axis=1))
    nodes = np.vstack([root, targets[order]])
    way, parent = np.zeros(len(nodes)), np.zeros(len(nodes), int)
    for child in range(1, len(nodes)):
        reach = np.linalg.norm(nodes[:child] - nodes[child], axis=1)
        parent[child] = np.argmin(reach + _THRIFT * way[:child])
        way[child] = way[parent[child]] + reach[parent[child]]
    cubes = np.full(len(nodes), twig**3)
    for child in range(len(nodes) - 1, 0, -1):  # children come after their parents
        cubes[parent[child]] += cubes[child]
    return nodes[parent[1:]], nodes[1:], np.cbrt(cubes[1:])


def paint_airways(grid: VoxelGrid, image: Floats, lungs: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Draw trachea, main bronchi and a few segmental bronchi, walls and lumen, in place."""
    carina = (0.0, 12.0, 34.0)
    ends = [(0, 4, 150), carina, carina], [carina, (30, 10, 14), (-28, 10, 16)]
    trunk: Tree = np.array(ends[0]), np.array(ends[1]), np.array([8.5, 6.0, 6.5])
    trees = [(trunk, np.ones(grid.shape, bool))]
    for side, code in zip(SIDES, (LEFT, RIGHT), strict=True):
        targets = _targets(grid, lungs == code, 12, rng)
        trees.append((grow_tree(np.array([side * 29, 10.0, 15.0]), targets, 1.3), lungs == code))
    for hu, wall in ((20, 1.0), (-980, 0.0)):  # walls first, then lumen, so that branches stay open
        for (starts, tips, radii), where in trees:
            thickness = wall * np.clip(0.25 * radii, 0.6, 1.6)
            paint(image, hu, where * tubes(grid, starts, tips, radii + thickness))


def paint_vessels(grid: VoxelGrid, image: Floats, lungs: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Arteries and veins of both lungs, of blood's HU, in place."""
    fraction = np.zeros(grid.shape, np.float32)
    for side, code in zip(SIDES, (LEFT, RIGHT), strict=True):
        for height in (14.0, -6.0):  # arteries enter above the veins
            targets = _targets(grid, lungs == code, 170, rng)
            tree = grow_tree(np.array([side * 36, 2.0, height]), targets, twig=float(rng.uniform(0.8, 1.05)))
            fraction = np.maximum(fraction, tubes(grid, *tree))
    paint(image, BLOOD, fraction)


def _targets(grid: VoxelGrid, lung: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points (`count`, 3) spread evenly over a lung, none if the field of view has none of it."""
    points = grid.points(lung)
    chosen = points[rng.integers(len(points), size=count)] if len(points) else np.zeros((0, 3))
    return chosen + rng.uniform(-0.5, 0.5, chosen.shape) * grid.step
