"""From stored values to Hounsfield units, and from Hounsfield units to what the network sees."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

from scripts.errors import UserError

logger = logging.getLogger(__name__)

AIR_HU = -1024.0
"""HU of air outside of the body; lower values are padding of the reconstruction circle."""

HIGHEST_AIR_HU = -200.0
"""A scan whose lowest value lies above this holds no air, so it is no chest CT in HU."""

DEFAULT_WINDOW = (-1250.0, 250.0)
"""HU window of the Zenodo 3757476 data set, and what an 8-bit picture of unknown window is taken for."""

ACCEPTED = "accepted: HU, or --intensity window:LO,HI for values that an export mapped from that HU window"


def parse_intensity(intensity: str) -> str | tuple[float, float]:
    """Reads an intensity setting.

    Args:
        intensity: "auto", "hu" or "window:LO,HI" with LO < HI in HU.

    Returns:
        "auto", "hu" or (LO, HI).

    Raises:
        UserError: if it is none of these.

    >>> parse_intensity("window:-1250,250")
    (-1250.0, 250.0)
    """
    if intensity in ("auto", "hu"):
        return intensity
    kind, _, bounds = intensity.partition(":")
    try:
        low, high = (float(bound) for bound in bounds.split(","))
    except ValueError:
        low = high = 0.0
    if kind != "window" or not low < high:
        raise UserError(f"intensity is {intensity!r}; accepted: auto, hu, or window:LO,HI with LO < HI in HU")
    return low, high


def to_hounsfield(values: Tensor, intensity: str = "auto", picture: bool = False, name: str = "image") -> Tensor:
    """Maps stored values to HU, or stops where they cannot be HU.

    Values that are not finite become air (-1024 HU), as does padding below it; both are logged.

    Args:
        values: stored values, any shape.
        intensity: "auto" takes 8-bit pictures for the window [-1250, 250] HU and refuses a scan without
            air, because every chest CT in HU has air; "hu" takes the values as they are;
            "window:LO,HI" maps an export of 0-1 or 0-255 linearly back to that window.
        picture: whether the values come from an 8-bit picture (PNG, JPG).
        name: what messages call the scan.

    Returns:
        HU, float32, the same shape, >= -1024 unless a window says otherwise.

    Raises:
        UserError: if more than 1 % of the values are not finite, if "auto" finds values that are not HU, or
            if values do not fit an explicit window.
    """
    values = _replace_non_finite(values.float(), name)
    setting = parse_intensity(intensity)
    low, high = values.min().item(), values.max().item()
    found = f"{name}: values from {low:g} to {high:g}"
    if picture and setting == "auto":
        logger.debug(f"{found}: taken for an 8-bit picture of the HU window {list(DEFAULT_WINDOW)}")
        setting = DEFAULT_WINDOW
    if isinstance(setting, tuple):
        return _from_window(values, low, high, setting, found, top=255.0 if picture or high > 1 else 1.0)
    if setting == "auto" and low >= 0 and high <= 255:
        raise UserError(f"{found} look like a windowed export of a CT, not HU; {ACCEPTED}")
    if setting == "auto" and _lowest_above_padding(values) > HIGHEST_AIR_HU:
        raise UserError(f"{found} hold no air, so they are not HU (is the rescale intercept missing?); {ACCEPTED}")
    if low < AIR_HU:
        logger.info(f"{found}: padding below {AIR_HU:g} HU is taken for air")
    return values.clamp(min=AIR_HU)


def _lowest_above_padding(values: Tensor) -> float:
    return torch.where(values < AIR_HU, torch.inf, values).min().item()


def _replace_non_finite(values: Tensor, name: str) -> Tensor:
    finite = torch.isfinite(values)
    share = 1 - finite.float().mean().item()
    if share > 0.01:
        raise UserError(f"{name}: {share:.1%} of the values are NaN or infinite; accepted: at most 1 %")
    if share > 0:
        logger.warning(f"{name}: {share:.2%} of the values are NaN or infinite and are taken for air")
        return torch.where(finite, values, torch.full_like(values, AIR_HU))
    return values


def _from_window(
    values: Tensor, low: float, high: float, window: tuple[float, float], found: str, top: float
) -> Tensor:
    if low < 0 or high > 255:
        raise UserError(f"{found} do not come from a window; accepted with window:LO,HI: 0 to 1 or 0 to 255")
    return window[0] + values / top * (window[1] - window[0])


class IntensityGuardd(MapTransform):
    """`to_hounsfield` for dictionaries; an item's own "intensity" entry goes before the general setting.

    Args:
        keys: images to map to HU.
        intensity: see `to_hounsfield`.
    """

    def __init__(self, keys: KeysCollection, intensity: str = "auto") -> None:
        super().__init__(keys)
        parse_intensity(intensity)
        self.intensity = intensity

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with HU in place of stored values."""
        item = dict(data)
        for key in self.key_iterator(item):
            meta = item[key].meta if isinstance(item[key], MetaTensor) else {}
            item[key] = to_hounsfield(
                item[key],
                item.get("intensity") or self.intensity,
                picture=bool(meta.get("picture", False)),
                name=str(meta.get("filename_or_obj", key)),
            )
        return item


class SliceZScored(MapTransform):
    """Per-slice z-score (x - mean) / (std + 1e-8), population standard deviation, as the paper's code does.

    Args:
        keys: images (C, X, Y) or (C, X, Y, Z); a slice is everything that shares a channel and a Z index.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with slices of mean 0 and standard deviation 1; a constant slice becomes 0."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            std, mean = torch.std_mean(image, dim=(1, 2), correction=0, keepdim=True)
            item[key] = (image - mean) / (std + 1e-8)
        return item


class RandWindowd(MapTransform, RandomizableTransform):
    """Scales HU from a window to [0, 1] and clips; while training the window's bounds may be jittered.

    Pictures in public data sets were windowed by unknown hands. A network that saw many windows is less bound
    to one. With `jitter` 0 this is the deterministic step of the preprocessing.

    Args:
        keys: images in HU.
        window: (LO, HI) in HU.
        jitter: largest shift of either bound, as a share of the window's width, in [0, 0.5).

    Raises:
        ValueError: if a jitter could turn the window round.
    """

    def __init__(self, keys: KeysCollection, window: tuple[float, float] = DEFAULT_WINDOW, jitter: float = 0.0) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=1.0)
        if not 0 <= jitter < 0.5:
            raise ValueError(f"jitter is {jitter}; accepted: 0 <= jitter < 0.5")
        self.window = (float(window[0]), float(window[1]))
        self.jitter = jitter

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with values in [0, 1]."""
        item = dict(data)
        low, high = self.window
        if self.jitter:
            reach = self.jitter * (high - low)
            low, high = low + self.R.uniform(-reach, reach), high + self.R.uniform(-reach, reach)
        for key in self.key_iterator(item):
            item[key] = ((item[key] - low) / (high - low)).clamp(0, 1)
        return item
