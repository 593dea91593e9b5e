"""Fill the convex hull of a mask of one slice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .downsampling import Mask

_NONE = -(1 << 30)


def convex_hull(mask: Mask) -> Mask:
    """Return the convex hull of the pixels of a slice (X, Y), as scikit-image defines it.

    A pixel is a diamond with a diagonal of 1. A pixel whose middle lies on the border belongs to
    the hull. Computed in whole numbers of half pixels, so that nothing is rounded.
    """
    hull = np.zeros_like(mask)
    columns = np.flatnonzero(mask.any(axis=1))
    if columns.size:
        first, last = mask[columns].argmax(axis=1), mask.shape[1] - 1 - mask[columns, ::-1].argmax(axis=1)
        y = 2 * np.arange(mask.shape[1])
        inside = (y <= _border(columns, 2 * last)[:, None]) & (-y <= _border(columns, -2 * first)[:, None])
        hull[columns[0] : columns[-1] + 1] = inside
    return hull


def _border(columns: NDArray[np.intp], highest: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the upper border of the hull in each column, rounded down.

    `highest` is the middle of the highest pixel of each of `columns`, in half pixels.
    """
    top = np.full(2 * int(columns[-1] - columns[0]) + 3, _NONE)  # by x in half pixels
    at = 2 * (columns - columns[0]) + 1
    top[at] = highest + 1
    for side in (at - 1, at + 1):
        np.maximum.at(top, side, highest)
    corners: list[tuple[int, int]] = []
    for x in np.flatnonzero(top > _NONE).tolist():
        y = int(top[x])
        while len(corners) > 1 and _is_below(corners[-1], corners[-2], (x, y)):
            corners.pop()
        corners.append((x, y))
    xs, ys = np.array(corners).T
    middles = np.arange(1, len(top), 2)
    k = np.searchsorted(xs, middles, side="right") - 1
    rise, run = ys[k + 1] - ys[k], xs[k + 1] - xs[k]
    border: NDArray[np.intp] = ys[k] + rise * (middles - xs[k]) // run
    return border


def _is_below(corner: tuple[int, int], left: tuple[int, int], right: tuple[int, int]) -> bool:
    """Return whether a corner lies on or below the line between two others."""
    (x, y), (x0, y0), (x1, y1) = corner, left, right
    return (y - y0) * (x1 - x0) <= (y1 - y0) * (x - x0)
