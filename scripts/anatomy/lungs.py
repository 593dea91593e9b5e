"""Segment right and left lung with their consolidations without a network, and check the result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .downsampling import Mask, Spacing, box, centre, enlarge
from .given import read_codes
from .plausibility import find_cuts, find_doubts
from .pleura import close_lung
from .sides import LEFT, RIGHT, split_sides
from .tissue import Tissues


@dataclass(frozen=True)
class Lungs:
    """Hold both lungs, on a grid of blocks of voxels.

    Attributes:
        mask: 0 none, 1 right, 2 left, uint8 (X', Y', Z'), LPS.
        steps: full-resolution voxels in a block along x, y, z.
        spacing: full-resolution voxel size along x, y, z in mm.
        shape: full-resolution shape (X, Y, Z).
        doubts: sentences on what speaks against the mask; none if it is plausible.
        cuts: sentences on where the field of view is truncated, so that percentages of a lung are
            those of a part.
        notes: what was done to a mask that somebody else made.
    """

    mask: NDArray[np.uint8]
    steps: tuple[int, int, int]
    spacing: Spacing
    shape: tuple[int, int, int]
    doubts: list[str] = field(default_factory=list)
    cuts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def plausible(self) -> bool:
        """Whether nothing speaks against the mask."""
        return not self.doubts

    @property
    def partial(self) -> bool:
        """Whether the scan ends within the lungs."""
        return bool(self.cuts)

    @property
    def right_ml(self) -> float:
        """Volume of the right lung in ml."""
        return self._ml(RIGHT)

    @property
    def left_ml(self) -> float:
        """Volume of the left lung in ml."""
        return self._ml(LEFT)

    def slab(self, z: int) -> NDArray[np.uint8]:
        """The mask of one full-resolution axial slice, uint8 (X, Y): 0 none, 1 right, 2 left."""
        if not 0 <= z < self.shape[2]:
            raise IndexError(f"slice {z} of {self.shape[2]}")
        return enlarge(self.mask[:, :, z // self.steps[2]], self.steps, self.shape)

    def box(self) -> list[list[int]] | None:
        """Return first and last full-resolution index of both lungs along x, y, z; None without."""
        if not self.mask.any():
            return None
        return [
            [block.start * step, min(block.stop * step, length) - 1]
            for block, step, length in zip(box(self.mask > 0), self.steps, self.shape, strict=True)
        ]

    def areas(self) -> NDArray[np.int64]:
        """Count the full-resolution voxels of each axial slice in right and left lung, (Z, 2)."""
        return np.stack([self._areas(code) for code in (RIGHT, LEFT)], axis=1)

    def _areas(self, code: int) -> NDArray[np.int64]:
        """Count the full-resolution voxels of each axial slice in one lung, (Z,)."""
        x, y, z = (
            np.diff(np.append(np.arange(0, length, step), length))
            for length, step in zip(self.shape, self.steps, strict=True)
        )
        blocks = [x @ (self.mask[:, :, k] == code) @ y for k in range(len(z))]
        return np.array(blocks, np.int64).repeat(z)

    def _ml(self, code: int) -> float:
        """Return the volume of one lung in ml."""
        return float(self._areas(code).sum() * np.prod(self.spacing)) / 1000

    @classmethod
    def from_mask(cls, mask: NDArray[Any], spacing: Spacing, spacing_known: bool = True) -> Lungs:
        """Lungs from a mask that the user has, at full resolution.

        Args:
            mask: (X, Y, Z), LPS, with 1 for the right and 2 for the left lung, or one other value
                for both.
            spacing: voxel size in mm.
            spacing_known: whether these are real millimetres; else volumes and sections are not
                judged.

        Returns:
            Lungs on the full grid with `notes` on what was done to the mask: see
            `given.read_codes`.

        Raises:
            ValueError: if the mask is no volume, is empty or holds other values.
        """
        codes, notes = read_codes(mask, spacing)
        return replace(cls.from_codes(codes, spacing, spacing_known), notes=notes)

    @classmethod
    def from_codes(cls, codes: NDArray[np.uint8], spacing: Spacing, spacing_known: bool = True) -> Lungs:
        """Lungs from a mask whose values are 1 for the right and 2 for the left lung, one or both.

        Other arguments as for `from_mask`.
        """
        shape = (codes.shape[0], codes.shape[1], codes.shape[2])
        lungs = cls(codes, (1, 1, 1), spacing, shape)
        return _judge(lungs) if spacing_known else lungs


def segment_lungs(seen: Tissues) -> Lungs:
    """Find both lungs in a chest CT of an adult by thresholds and shapes.

    Aerated lung is air inside the body that is neither airway nor bowel (after Hu, Hoffman and
    Reinhardt, IEEE TMI 2001;20:490); it is then closed and filled up to the chest wall, so that
    opacities belong to the lung. A lobe that is consolidated as a whole, or drowned in an effusion,
    down to the diaphragm is not recovered: its border to the liver or the heart has no contrast.

    Returns:
        Lungs on a grid of about 2 mm; without any, an empty mask with a doubt that says so.
    """
    scan = seen.scan
    mask = _complete(seen.aerated, seen.inner, seen.airways, scan.spacing)
    x, y, z = (size / step for size, step in zip(scan.spacing, scan.steps, strict=True))
    return _judge(Lungs(mask, scan.steps, (x, y, z), scan.shape))


def _complete(aerated: Mask, room: Mask, airways: Mask, spacing: Spacing) -> NDArray[np.uint8]:
    """Return right and left lung, each with the opacities that lie in its room."""
    mask = np.zeros(aerated.shape, np.uint8)
    if not aerated.any():
        return mask
    columns = np.flatnonzero(room.any(axis=(1, 2)))
    middle = float(columns.mean()) if columns.size else (len(room) - 1) / 2
    sides, _ = split_sides(aerated, spacing, middle)
    lungs = {side: aerated & (sides == side) for side in (RIGHT, LEFT)}
    centres = np.array([[centre(lung, axis) for axis in (0, 1)] for lung in lungs.values() if lung.any()])
    x, y = centres.mean(axis=0) if len(centres) == 2 else (middle, centres[0, 1])
    for side, lung in lungs.items():
        if lung.any():
            whole = close_lung(lung, room, spacing, (x, y))
            mask[whole & ~airways & ((mask == 0) | lung)] = side
    return mask


def _judge(lungs: Lungs) -> Lungs:
    """Return the same lungs with what speaks against them."""
    x, y, z = (size * step for size, step in zip(lungs.spacing, lungs.steps, strict=True))
    cuts = find_cuts(lungs.mask, (x, y, z))
    return replace(lungs, cuts=cuts, doubts=find_doubts(lungs.shape[2], lungs.right_ml, lungs.left_ml, bool(cuts)))
