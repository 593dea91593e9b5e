"""Tell aerated lung from the other air inside the body."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .airways import find_airways
from .downsampling import DownsampledScan, Mask, chosen

AIRY = -400  # HU below which a voxel is air or aerated lung; ground-glass opacities lie below it for the most part
GAS = -960  # HU below which there is no tissue, blood included: bowel, airways, pneumothorax
_SMALLEST = 3.0  # ml of a piece of lung that a consolidation cut off
_LARGE = 0.15  # of the volume of the largest component: a lung, wherever it lies
_GASEOUS, _PIECE_GASEOUS = 0.4, 0.1  # fraction of gas from which a lung, or a piece of one, is bowel or airway
WALL = 10.0  # mm: no lung lies closer to the skin; air does, between arm and chest or back and table


def find_aerated(scan: DownsampledScan, body: Mask, inner: Mask) -> tuple[Mask, Mask]:
    """Find aerated lung and the airways that were taken out of it.

    Args:
        scan: the downsampled scan.
        body: the body, filled (X', Y', Z').
        inner: the body without `WALL` below the skin.

    Returns:
        Aerated lung and airways with their walls, (X', Y', Z') each; the first is empty without a
        lung.
    """
    air = body & (scan.hu < AIRY)
    columns = np.flatnonzero(body.any(axis=(1, 2)))
    airways = find_airways(scan, air, float(columns.mean()) if columns.size else 0.0)
    return _choose(scan, air & ~airways, inner), airways


def _choose(scan: DownsampledScan, air: Mask, deep: Mask) -> Mask:
    """Return the components of air that are lung.

    Lung holds tissue, bowel gas does not, and it lies deep in the body. The largest component is
    lung; a large one beside it is the other lung, a small one is lung where it does not lie below
    the bulk of the lungs, as bowel does.
    """
    parts, count = ndimage.label(air)
    x, y, z = np.nonzero(air)
    part = parts[x, y, z]
    voxels = np.maximum(np.bincount(part, minlength=count + 1)[1:], 1)
    gas = np.bincount(part[scan.hu[x, y, z] < GAS], minlength=count + 1)[1:] / voxels
    inside = np.bincount(part[deep[x, y, z]], minlength=count + 1)[1:] / voxels
    able = (voxels * scan.ml > _SMALLEST) & (gas < _GASEOUS) & (inside > 0.5)
    if not able.any():
        return np.zeros_like(air)
    main = int(np.where(able, voxels, 0).argmax())
    index = np.flatnonzero(able)
    large = voxels[index] > _LARGE * voxels[main]
    heights = np.bincount(part, z, minlength=count + 1)[1:] / voxels
    above = heights[index] > np.quantile(z[part == main + 1], 0.25)
    return chosen(parts, index[large | (above & (gas[index] < _PIECE_GASEOUS))] + 1)
