"""Decide how stored values become Hounsfield units, and map them; no MONAI is imported."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..io.padding import Padding, find_padding
from .slice_input import DEFAULT_WINDOW, each_slice

AIR_HU = -1024.0  # HU of air outside of the body; lower values are padding of the reconstruction circle
HIGHEST_AIR_HU = -200.0  # A scan whose lowest value lies above this holds no air, so it is no chest CT in HU

EXPECTED = "expected: HU, or --intensity window:LO,HI for values that an export mapped from that HU window"


def parse_intensity(intensity: str) -> str | tuple[float, float]:
    """Read "auto", "hu", or "window:LO,HI" as (LO, HI) with LO < HI in HU; UserError for others.

    >>> parse_intensity("window:-1250,250")
    (-1250.0, 250.0)
    """
    if intensity in ("auto", "hu"):
        return intensity
    kind, _, bounds = str(intensity).partition(":")
    try:
        low, high = (float(bound) for bound in bounds.split(","))
    except ValueError:
        low = high = 0.0
    if kind != "window" or not low < high:
        raise UserError(f"intensity is {intensity!r}; expected: auto, hu, or window:LO,HI with LO < HI in HU")
    return low, high


def window_bounds(window: Any) -> list[float]:
    """Read an HU window: [LO, HI] with LO < HI in HU; UserError for others.

    >>> window_bounds([-1250, "250"])
    [-1250.0, 250.0]
    """
    try:
        low, high = (float(bound) for bound in window)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise UserError(f"window is {window!r}; expected: [LO, HI] with LO < HI in HU")
    return [low, high]


@dataclass(frozen=True)
class ValueRange:
    """What is known about the stored values of a scan; ranges of its parts are added with `|`."""

    low: float = math.inf  # lowest finite value
    high: float = -math.inf  # highest finite value
    low_above_padding: float = math.inf  # lowest value of at least -1024
    not_finite: int = 0  # values that are NaN or infinite
    count: int = 0

    @classmethod
    def of(cls, values: Tensor) -> ValueRange:
        """Return the range of some float values."""
        finite = torch.isfinite(values)
        whole = bool(finite.all())
        kept = values if whole else values[finite]
        if not kept.numel():
            return cls(not_finite=values.numel(), count=values.numel())
        low, high = torch.stack(torch.aminmax(kept)).cpu().tolist()
        above = low if low >= AIR_HU else torch.where(kept < AIR_HU, torch.inf, kept).min().cpu().item()
        return cls(low, high, above, values.numel() - kept.numel(), values.numel())

    def __or__(self, other: ValueRange) -> ValueRange:
        """Return the range of both parts."""
        above = min(self.low_above_padding, other.low_above_padding)
        counts = self.not_finite + other.not_finite, self.count + other.count
        return ValueRange(min(self.low, other.low), max(self.high, other.high), above, *counts)


@dataclass(frozen=True)
class HounsfieldMap:
    """How stored values become HU."""

    window: tuple[float, float] | None = None  # HU that 0 and `top` stand for; None: values are HU
    top: float = 255.0  # highest stored value of a windowed export, 1 or 255
    remarks: tuple[str, ...] = ()  # what was assumed or mended, a sentence each
    padding: Padding | None = None  # lies around the reconstruction circle, lighter than air; becomes air

    def __call__(self, values: Tensor) -> Tensor:
        """Map float values (X, Y), or volumes (C, X, Y, Z), to HU; what is not finite is air."""
        if self.padding is None:
            return self._mapped(values)
        if values.ndim == 2:
            return self._mapped(values.masked_fill(self.padding.mask(values), AIR_HU))
        return each_slice(values, self)

    def _mapped(self, values: Tensor) -> Tensor:
        values = torch.nan_to_num(values, self._air(), self._air(), self._air())
        if self.window is None:
            return values.clamp(min=AIR_HU)
        return self.window[0] + values / self.top * (self.window[1] - self.window[0])

    def _air(self) -> float:
        return AIR_HU if self.window is None else 0.0


def plan_hounsfield(
    found: ValueRange,
    intensity: str = "auto",
    picture: bool = False,
    name: str = "image",
    padding: Padding | None = None,
) -> HounsfieldMap:
    """Decide how the stored values of a scan become HU; stop where they cannot be HU.

    Args:
        found: the range of the values, padding left out.
        intensity: "auto" takes 8-bit pictures for the window [-1250, 250] HU and refuses a scan
            without air, because every chest CT in HU has air; "hu" takes the values as they are;
            "window:LO,HI" maps an export of 0-1 or 0-255 linearly back to that window.
        picture: whether the values come from an 8-bit picture (PNG, JPG).
        name: what messages call the scan.
        padding: what `find_padding` found in the values.

    Raises:
        UserError: if more than 1 % of the values are not finite, if "auto" finds values that are
            not HU, or if values do not fit an explicit window.
    """
    remarks = _check_finite(found, name)
    setting = parse_intensity(intensity)
    text = f"{name}: values from {found.low:g} to {found.high:g}"
    if picture and setting == "auto":
        remarks.append(f"8-bit picture of unknown window, taken for {DEFAULT_WINDOW[0]:g} to {DEFAULT_WINDOW[1]:g} HU")
        setting = DEFAULT_WINDOW
    if isinstance(setting, tuple):
        if found.low < 0 or found.high > 255:
            expected = "with window:LO,HI: 0 to 1 or 0 to 255 (--intensity hu takes values for HU)"
            raise UserError(f"{text} do not come from a window; expected {expected}")
        return HounsfieldMap(setting, 255.0 if picture or found.high > 1 else 1.0, tuple(remarks))
    if setting == "auto" and found.low >= 0 and found.high <= 255:
        raise UserError(f"{text} look like a windowed export of a CT, not HU; {EXPECTED}")
    if setting == "auto" and found.low_above_padding > HIGHEST_AIR_HU:
        raise UserError(f"{text} hold no air, so they are not HU (is the rescale intercept missing?); {EXPECTED}")
    if found.low < AIR_HU:
        remarks.append(f"values down to {found.low:g}: padding below {AIR_HU:g} HU is taken for air")
    if padding is not None:
        remarks.append(f"outside of the reconstruction circle the values are {padding.text}: they are taken for air")
    return HounsfieldMap(remarks=tuple(remarks), padding=padding)


def scan_values(
    slice_at: Callable[[int], Tensor], count: int, look_for_padding: bool = True, named: Padding | None = None
) -> tuple[ValueRange, Padding | None]:
    """Return the range of a scan's values and what surrounds its reconstruction circle.

    `slice_at` gives slices (X, Y), float, by index. Padding is not looked for in a picture or an
    export that was windowed, whose values are no HU. `named` is padding that the header names.
    """
    padding = (find_padding(slice_at, count) or named) if look_for_padding else None
    found = ValueRange()
    for index in range(count):
        values = slice_at(index)
        found |= ValueRange.of(values if padding is None else values[~padding.mask(values)])
    return found, padding


def _check_finite(found: ValueRange, name: str) -> list[str]:
    fraction = found.not_finite / max(found.count, 1)
    if fraction > 0.01:
        raise UserError(f"{name}: {fraction:.1%} of the values are NaN or infinite; expected: at most 1 %")
    return [f"{fraction:.2%} of the values are NaN or infinite and are taken for air"] if fraction > 0 else []
