"""Complete aerated lung by vessels, consolidations and effusions, which hold no air."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .downsampling import Mask, Spacing, box, close, fill_holes, in_voxels

_HILUM = 10.0  # mm: radius of the closing; the aorta (radius about 12) does not fit through
_ARC, _HEIGHT = 75.0, 60.0  # mm along the wall, around and along z: widest opacity that is bridged
_NEAREST = 30.0  # mm from the middle to a chest wall
_ANGLES = 360
_THICKEST = 45.0  # mm of opacity between aerated lung and chest wall


@dataclass(frozen=True)
class Polar:
    """Hold where each voxel of an axial slice lies as seen from the middle of the chest.

    Attributes:
        angle: direction in degrees, int (X, Y), in [0, 360).
        radius: distance in mm, float (X, Y).
    """

    angle: NDArray[np.intp]
    radius: NDArray[np.float64]

    @classmethod
    def around(cls, centre: tuple[float, float], shape: tuple[int, ...], spacing: Spacing) -> Polar:
        """Return polar coordinates around `centre`, in voxels."""
        x = ((np.arange(shape[0]) - centre[0]) * spacing[0])[:, None]
        y = ((np.arange(shape[1]) - centre[1]) * spacing[1])[None]
        angle = np.rint(np.degrees(np.arctan2(y, x))).astype(np.intp) % _ANGLES
        return cls(angle, np.hypot(x, y))


def close_lung(lung: Mask, room: Mask, spacing: Spacing, centre: tuple[float, float]) -> Mask:
    """Complete one lung.

    A closing by a ball fills vessels and opacities up to 20 mm thick. Then the pleura is taken to
    run along the chest wall as a surface without dents, and opacities that reach it, or that it
    encloses together with aerated lung, are filled up to it. Seen from the middle of the chest the
    lung is the outermost there; heart, mediastinum and liver lie on the inner side and are left
    alone. A lung that the field of view cuts has no such wall.

    Args:
        lung: aerated lung (X', Y', Z'), at least one voxel.
        room: where opacities may lie, on the same grid: not near the skin.
        spacing: voxel size in mm.
        centre: x and y of the middle between the lungs, in voxels.
    """
    whole = lung.copy()
    place = box(lung, margin=2)
    closed = close(lung[place], _HILUM, spacing)
    if not any(side.any() for side in (lung[0], lung[-1], lung[:, 0], lung[:, -1])):
        polar = Polar.around((centre[0] - place[0].start, centre[1] - place[1].start), closed.shape, spacing)
        closed = _fill_to_the_wall(closed, room[place], polar, spacing)
    whole[place] |= fill_holes(closed)
    return whole


def _fill_to_the_wall(closed: Mask, room: Mask, polar: Polar, spacing: Spacing) -> Mask:
    """Return a lung with the opacities between it and the chest wall."""
    outermost = _outermost(closed, polar)
    wall = _smooth(outermost, spacing)[polar.angle]
    inside = polar.radius[:, :, None] <= wall  # never where no lung is seen
    beyond = room & inside & (polar.radius[:, :, None] > outermost[polar.angle])
    filled = closed | beyond
    return filled | (room & inside & fill_holes(filled | (~inside & (wall > 0))))


def _smooth(outermost: NDArray[np.float64], spacing: Spacing) -> NDArray[np.float64]:
    """Return the chest wall's distance in mm by direction and slice, (360, Z'); 0 without lung."""
    reach = max(_NEAREST, float(np.quantile(outermost, 0.9)))
    arc, height = int(np.degrees(_ARC / reach)), int(in_voxels(_HEIGHT, spacing[2]))
    around = np.pad(outermost, [(arc, arc), (0, 0)], mode="wrap")
    wall = ndimage.grey_closing(around, size=(arc | 1, height | 1), mode="constant")[arc:-arc]
    return np.where(outermost > 0, np.clip(wall, outermost, outermost + _THICKEST), 0)


def _outermost(lung: Mask, polar: Polar) -> NDArray[np.float64]:
    """Return the outermost lung's distance in mm by direction and slice, (360, Z'); or 0."""
    x, y, z = np.nonzero(lung)
    outermost = np.zeros((_ANGLES, lung.shape[2]))
    np.maximum.at(outermost, (polar.angle[x, y], z), polar.radius[x, y])
    return outermost
