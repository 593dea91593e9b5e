"""Airways and vessels of the phantom's lungs: branching trees of tubes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .anatomy import BLOOD, SIDES
from .grid import Floats, VoxelGrid, paint, tubes

LEFT, RIGHT = 1, 2  # codes of the lung masks of Zenodo 3757476


@dataclass(frozen=True)
class Tree:
    """Straight segments of a branching tree: ends (N, 3) and radii (N,), in mm."""

    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    radii: NDArray[np.float64]


def grow_tree(root: NDArray[np.float64], targets: NDArray[np.float64], twig: float, thrift: float = 0.35) -> Tree:
    """Grow a tree from `root` through all `targets` (N, 3).

    Targets join in the order of their distance from the root, each where the added length plus
    `thrift` times the way to the root is least. Radii follow Murray's law, r^3 summed over the
    branches.

    Args:
        root: where the tree starts (3,), in mm.
        targets: points to reach (N, 3), in mm.
        twig: radius of a tree's ends in mm.
        thrift: 0 gives the shortest tree, 1 the shortest ways.
    """
    order = np.argsort(np.linalg.norm(targets - root, axis=1))
    nodes = np.vstack([root, targets[order]])
    way, parent = np.zeros(len(nodes)), np.zeros(len(nodes), int)
    for child in range(1, len(nodes)):
        reach = np.linalg.norm(nodes[:child] - nodes[child], axis=1)
        parent[child] = np.argmin(reach + thrift * way[:child])
        way[child] = way[parent[child]] + reach[parent[child]]
    cubes = np.full(len(nodes), twig**3)
    for child in range(len(nodes) - 1, 0, -1):  # children come after their parents
        cubes[parent[child]] += cubes[child]
    return Tree(nodes[parent[1:]], nodes[1:], np.cbrt(cubes[1:]))


def paint_airways(grid: VoxelGrid, image: Floats, lungs: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Draw trachea, main bronchi and a few segmental bronchi, walls and lumen, in place."""
    carina = (0.0, 12.0, 34.0)
    trunk = Tree(
        starts=np.array([(0, 4, 150), carina, carina]),
        ends=np.array([carina, (30, 10, 14), (-28, 10, 16)]),
        radii=np.array([8.5, 6.0, 6.5]),
    )
    trees = [(trunk, np.ones(grid.shape, bool))]
    for side, code in zip(SIDES, (LEFT, RIGHT), strict=True):
        targets = _targets(grid, lungs == code, 12, rng)
        trees.append((grow_tree(np.array([side * 29, 10.0, 15.0]), targets, 1.3), lungs == code))
    for hu, wall in ((20, 1.0), (-980, 0.0)):  # walls first, then lumen, so that branches stay open
        for tree, where in trees:
            thickness = wall * np.clip(0.25 * tree.radii, 0.6, 1.6)
            paint(image, hu, where * tubes(grid, tree.starts, tree.ends, tree.radii + thickness))


def paint_vessels(grid: VoxelGrid, image: Floats, lungs: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Arteries and veins of both lungs, of blood's HU, in place."""
    fraction = np.zeros(grid.shape, np.float32)
    for side, code in zip(SIDES, (LEFT, RIGHT), strict=True):
        for height in (14.0, -6.0):  # arteries enter above the veins
            targets = _targets(grid, lungs == code, 170, rng)
            tree = grow_tree(np.array([side * 36, 2.0, height]), targets, twig=float(rng.uniform(0.8, 1.05)))
            fraction = np.maximum(fraction, tubes(grid, tree.starts, tree.ends, tree.radii))
    paint(image, BLOOD, fraction)


def _targets(grid: VoxelGrid, lung: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points (`count`, 3) spread evenly over a lung, none if the field of view has none of it."""
    points = grid.points(lung)
    chosen = points[rng.integers(len(points), size=count)] if len(points) else np.zeros((0, 3))
    return chosen + rng.uniform(-0.5, 0.5, chosen.shape) * grid.step
