"""The healthy thorax of the phantom without lungs: surfaces as level functions, in HU.

Typical HU are those of radiology textbooks: air -1000, lung about -850, fat -100, blood 40, muscle
55, bone above 150. Coordinates are those of `VoxelGrid`: mm, x to the left, y to posterior, z to
superior, 0 in the middle of the chest.
"""

from dataclasses import dataclass

import numpy as np

from .grid import Floats, VoxelGrid, coverage, cylinder, ellipsoid, noise, paint, smooth_max, tubes

FAT, BLOOD, MUSCLE, LIVER, AIR = -100.0, 42.0, 55.0, 60.0, -1000.0
APEX, BASE = 112.0, -118.0  # z of the top and of the bottom of the thoracic cavity
SIDES = (1.0, -1.0)  # left, right: the sign of x


@dataclass(frozen=True)
class Surfaces:
    """Level functions (negative inside, in about mm) that lungs and their diseases are built from.

    Attributes:
        cavity: the thoracic cavity, bounded by the parietal pleura.
        heart: the pericardium.
        diaphragm: negative above the domes of the diaphragm.
        lungs: both lungs.
    """

    cavity: Floats
    heart: Floats
    diaphragm: Floats
    lungs: Floats


def draw_surfaces(grid: VoxelGrid, rng: np.random.Generator) -> Surfaces:
    """Draw one patient's shape."""
    cavity = _cavity(grid, rng)
    centre = (float(rng.uniform(18, 28)), -28.0, float(rng.uniform(-58, -45)))
    radii = (float(rng.uniform(54, 64)), float(rng.uniform(38, 45)), 52.0)
    heart = ellipsoid(grid, centre, radii, turn=-0.5)
    diaphragm = _diaphragm(grid, rng)
    lungs = smooth_max(cavity, _mediastinum(grid, float(rng.uniform(24, 30))) - np.abs(grid.x))
    spine = cylinder(grid, (0, 66), (25, 27))
    for organ in (-heart, -spine, diaphragm):
        lungs = smooth_max(lungs, organ, 6)
    return Surfaces(cavity, heart, diaphragm, lungs)


def _cavity(grid: VoxelGrid, rng: np.random.Generator) -> Floats:
    height = np.clip((grid.z - BASE) / (APEX - BASE), 0, 1)
    width = np.maximum(np.sqrt(1 - height ** rng.uniform(3.2, 4.4)), 0.05)
    half_x, half_y = rng.uniform(118, 128) * width, rng.uniform(84, 92) * width
    y = grid.y - 12 * height**2  # the apex lies behind
    norm = (np.abs(grid.x / half_x) ** 2.4 + np.abs(y / half_y) ** 2.4) ** (1 / 2.4)
    return ((norm - 1) * half_y).astype(np.float32)


def _mediastinum(grid: VoxelGrid, half_width: float) -> Floats:
    """Return half the width of the mediastinum in mm, (1, Y, Z), thickest at the hila."""
    hila = 10 * np.exp(-(((grid.z - 8) / 26) ** 2) - ((grid.y - 2) / 22) ** 2)
    return 5 + half_width * np.exp(-(((grid.y - 4) / 42) ** 2)) + hila


def _diaphragm(grid: VoxelGrid, rng: np.random.Generator) -> Floats:
    level = []
    for side in SIDES:
        top = rng.uniform(-62, -48) - (10 if side > 0 else 0)
        drop = ((grid.x - side * 58) / 62) ** 2 + ((grid.y + 8) / 80) ** 2
        level.append(top - 46 * drop)
    return (np.where(grid.x > 0, level[0], level[1]) - grid.z).astype(np.float32)


def paint_body(grid: VoxelGrid, surfaces: Surfaces, rng: np.random.Generator) -> Floats:
    """Draw table, skin, fat, muscle, bones, mediastinum and abdomen in HU, without lungs."""
    image = np.full(grid.shape, AIR, np.float32)
    half_x, half_y, fat = rng.uniform(150, 158), rng.uniform(106, 112), rng.uniform(8, 16)
    norm = (np.abs(grid.x / half_x) ** 2.6 + np.abs(grid.y / half_y) ** 2.6) ** (1 / 2.6)
    body = ((norm - 1) * half_y).astype(np.float32)
    _paint_table(grid, image, float(half_y), rng)
    paint(image, 20, coverage(body))
    paint(image, FAT, coverage(body + 2.5))
    flesh = np.where(noise(rng, grid, 7) > 1, FAT, MUSCLE)  # fat between the muscles
    paint(image, flesh, coverage(np.minimum(body + fat, surfaces.cavity - 12)))
    _paint_bones(grid, image, surfaces.cavity, rng)
    _paint_inside(grid, image, surfaces, rng)
    return image


def _paint_table(grid: VoxelGrid, image: Floats, half_y: float, rng: np.random.Generator) -> None:
    """Draw mattress, carbon shell of the table and, on some patients, a blanket."""
    under = grid.y - half_y - 0.0006 * grid.x**2 + 6
    paint(image, rng.uniform(-750, -450), coverage(np.abs(under - 8) - 8))
    paint(image, -150, coverage(np.abs(under - 20) - 2))
    paint(image, -880, coverage(np.abs(under - 32) - 10))
    if rng.random() < 0.6:
        over = np.hypot(grid.x / 172, (grid.y - 8) / 128) - 1
        blanket = np.maximum(np.abs(over) * 128 - rng.uniform(3, 7), grid.y - 70)
        paint(image, rng.uniform(-650, -350), coverage(blanket))


def _paint_bones(grid: VoxelGrid, image: Floats, cavity: Floats, rng: np.random.Generator) -> None:
    pitch = rng.uniform(25, 29)
    phase = 2 * np.pi * (grid.z - 0.5 * grid.y + rng.uniform(0, pitch)) / pitch
    ribs = np.maximum(np.abs(cavity - 6) - 4.5, (0.1 - np.cos(phase)) * pitch / (2 * np.pi))
    fraction = coverage(np.maximum(ribs, 18 - np.abs(grid.x)))
    paint(image, np.where(grid.y < -60, 110, rng.uniform(280, 420)), fraction)
    for side in SIDES:
        blade = coverage(ellipsoid(grid, (side * 98, 74, 58), (34, 5, 48), turn=-side * 0.75))
        paint(image, 300, blade)
    sternum = cylinder(grid, (0, float(-88 + rng.uniform(-3, 3))), (22, 7))
    paint(image, 170, coverage(np.maximum(sternum, np.abs(grid.z - 10) - 75)))
    paint(image, MUSCLE, coverage(cylinder(grid, (0, 78), (44, 24))))
    vertebra = [  # y, radii and HU of cortex, marrow, spinous process, arch, spinal canal
        (66, 19, 16, 450),
        (66, 16, 13, 190),
        (100, 4, 14, 350),
        (87, 14, 7, 350),
        (87, 8, 6, 25),
    ]
    for y, half_x, half_y, hu in vertebra:
        paint(image, hu, coverage(cylinder(grid, (0, y), (half_x, half_y))))


def _paint_inside(grid: VoxelGrid, image: Floats, surfaces: Surfaces, rng: np.random.Generator) -> None:
    """Draw the cavity without lungs: fat, heart, great vessels, liver, spleen, stomach air."""
    spine = cylinder(grid, (0, 66), (21, 18))
    paint(image, FAT + 10, coverage(np.maximum(surfaces.cavity, -spine)))
    below = np.maximum(-surfaces.diaphragm, surfaces.cavity)
    organs = np.where(grid.x < 25, LIVER, rng.uniform(35, 50))
    paint(image, organs, coverage(np.maximum(below + 2, -spine)))
    stomach = ellipsoid(grid, (62, -28, -100), (34, 26, 30))
    paint(image, -900, coverage(np.maximum(stomach, below + 6)))
    paint(image, BLOOD, coverage(surfaces.heart + 3))
    paint(image, BLOOD, _great_vessels(grid))


def _great_vessels(grid: VoxelGrid) -> Floats:
    """Aorta, pulmonary trunk and arteries, superior vena cava and the vessels of the neck."""
    path = [
        ((24, 44, -140), (24, 42, 40), 12.5),  # descending aorta
        ((24, 42, 40), (16, 10, 54), 12.5),  # arch
        ((16, 10, 54), (-8, -22, 40), 13.5),
        ((-8, -22, 40), (2, -26, -20), 15.0),  # ascending aorta
        ((14, -26, -20), (20, -8, 22), 13.0),  # pulmonary trunk and its branches to the hila
        ((20, -8, 22), (42, 2, 16), 10.0),
        ((18, -6, 20), (-42, 0, 12), 9.5),
        ((-26, -14, -10), (-24, -10, 60), 9.0),  # superior vena cava
        ((-24, -10, 60), (-30, -8, 130), 7.0),
        ((10, -6, 58), (26, -4, 130), 6.5),
        ((4, 34, -140), (0, 24, 130), 7.5),  # oesophagus
    ]
    starts, ends, radii = (np.array(column, float) for column in zip(*path, strict=True))
    return tubes(grid, starts, ends, radii)
