"""Find the padding outside of the reconstruction circle, by its shape or DICOM's value.

A scanner reconstructs a circle and writes one value around it: -1024 HU, -2000, -3024, 0 or 3071.
Whatever it is, there is no patient.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

LIGHTEST_AIR_HU = -950.0  # padding at or below this is as dark as the air of a room and stays as it is
_SAMPLES = 5  # slices that are looked at
_RING = 1.5  # pixels on either side of the circle that may belong to it or not
_SMALLEST, _LARGEST = 0.01, 0.6  # of a slice: what lies outside of its inscribed circle is 0.21
_MISMATCH = 0.01  # of the area outside of the circle


@dataclass(frozen=True)
class Padding:
    """The value around the reconstruction circle."""

    low: float  # NaN for what is not a number
    high: float
    radius: float | None = None  # pixels around a slice's middle; None: padding is joined to the border

    def mask(self, values: Tensor) -> Tensor:
        """Where padding lies in one slice of values (X, Y): bool, on the values' device."""
        held = ~torch.isfinite(values) if math.isnan(self.low) else (values >= self.low) & (values <= self.high)
        if self.radius is not None:
            beyond = _distances(values.shape[0], values.shape[1]) >= self.radius - _RING
            return held & torch.from_numpy(beyond).to(values.device)
        if not bool(held.any()):
            return held
        return torch.from_numpy(_joined_to_border(held.cpu().numpy())).to(values.device)

    @property
    def text(self) -> str:
        """The value for a message."""
        return f"{self.low:g}" if self.low == self.high or math.isnan(self.low) else f"{self.low:g} to {self.high:g}"


def find_padding(slice_at: Callable[[int], Tensor], count: int) -> Padding | None:
    """Find one value that fills the outside of a circle around the middle of the slices.

    Slices (X, Y) in even distances, in HU as stored, are looked at; more than half of them must
    show the same value around a circle. All four corners hold it, so that a scan with air in a
    corner is done with at once.

    Returns:
        The padding; None where there is none, or where it is as dark as air.
    """
    places = sorted({round(place) for place in np.linspace(0, count - 1, min(_SAMPLES, count) + 2)[1:-1]})
    found = [one for one in (_circle(slice_at(index)) for index in places) if one is not None]
    for value, _ in found:
        radii = [radius for other, radius in found if other == value or (math.isnan(other) and math.isnan(value))]
        if 2 * len(radii) > len(places):
            return Padding(value, value, float(np.median(radii)))
    return None


def _circle(values: Tensor) -> tuple[float, float] | None:
    plain = values.detach().cpu().numpy()
    corners = [float(plain[x, y]) for x in (0, -1) for y in (0, -1)]
    value = corners[0] if math.isfinite(corners[0]) else math.nan
    alike = all((not math.isfinite(one)) if math.isnan(value) else one == value for one in corners)
    if not alike or value <= LIGHTEST_AIR_HU:
        return None
    region = ~np.isfinite(plain) if math.isnan(value) else plain == value
    outside = _joined_to_corners(region)
    area = int(outside.sum())
    if not _SMALLEST * outside.size <= area <= _LARGEST * outside.size:
        return None
    distances = _distances(*outside.shape)
    radius = float(np.partition(distances.ravel(), outside.size - area)[outside.size - area])
    sure = np.abs(distances - radius) > _RING
    wrong = int((outside != (distances > radius))[sure].sum())
    return (value, radius) if wrong <= _MISMATCH * area else None


def _distances(columns: int, rows: int) -> NDArray[np.float64]:
    x, y = np.arange(columns) - (columns - 1) / 2, np.arange(rows) - (rows - 1) / 2
    return np.hypot(x[:, None], y[None, :])


def _joined_to_corners(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, _ = ndimage.label(region)
    return np.isin(parts, [part for part in parts[[0, 0, -1, -1], [0, -1, 0, -1]] if part])


def _joined_to_border(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, _ = ndimage.label(region)
    frame = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return np.isin(parts, frame[frame > 0])
