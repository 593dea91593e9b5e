"""From stored values to Hounsfield units, and from Hounsfield units to what the network sees."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform, ScaleIntensityRanged
from torch import Tensor

from ..errors import SettingError
from ..io.padding import Padding
from .hounsfield import ValueRange, parse_intensity, plan_hounsfield, scan_values
from .slice_input import DEFAULT_WINDOW, each_slice, scale_window, without_metadata, z_score

logger = logging.getLogger(__name__)


def to_hounsfield(
    values: Tensor, intensity: str = "auto", picture: bool = False, name: str = "image", named: Padding | None = None
) -> Tensor:
    """Map the stored values of a scan to HU, float32, >= -1024 unless a window says otherwise.

    See `plan_hounsfield`, whose remarks are logged. `named` is padding that the header names.
    """
    values = values.float()
    padding = None
    if values.ndim == 4 and values.shape[0] == 1:
        volume = without_metadata(values)[0]
        hounsfield = not picture and isinstance(parse_intensity(intensity), str)
        found, padding = scan_values(lambda index: volume[..., index], volume.shape[-1], hounsfield, named)
    else:
        found = ValueRange.of(values)
    plan = plan_hounsfield(found, intensity, picture, name, padding)
    for remark in plan.remarks:
        logger.info(f"{name}: {remark}")
    return plan(values)


class IntensityGuardd(MapTransform):
    """Apply `to_hounsfield` to images; an item's own "intensity" comes first."""

    def __init__(self, keys: KeysCollection, intensity: str = "auto") -> None:
        super().__init__(keys)
        parse_intensity(intensity)
        self.intensity = intensity

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with HU in place of stored values."""
        item = dict(data)
        for key in self.key_iterator(item):
            meta = item[key].meta if isinstance(item[key], MetaTensor) else {}
            item[key] = to_hounsfield(
                item[key],
                item.get("intensity") or self.intensity,
                picture=bool(meta.get("picture", False)),
                name=str(meta.get("filename_or_obj", key)),
                named=Padding(*map(float, meta["padding"])) if "padding" in meta else None,
            )
        return item


class SliceZScored(MapTransform):
    """Apply the per-slice z-score (x - mean) / (std + 1e-8) with the population SD.

    Of images (C, X, Y) or (C, X, Y, Z) a slice is what shares a channel and a Z index.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with slices of mean 0 and SD 1; a constant slice becomes 0."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = each_slice(item[key], z_score)
        return item


class RandWindowd(MapTransform, RandomizableTransform):
    """Scale HU from a window with jittered bounds to [0, 1] and clip.

    2-D images in public data sets were windowed by unknown hands. A network that saw many windows
    is less bound to one.

    Args:
        keys: images in HU.
        window: (LO, HI) in HU.
        jitter: largest shift of either bound, as a fraction of the window's width, in [0, 0.5);
            ValueError for others.
        prob: probability of the jitter; `steady`, the step without it, runs otherwise.
    """

    def __init__(
        self, keys: KeysCollection, window: Sequence[float] = DEFAULT_WINDOW, jitter: float = 0.0, prob: float = 1.0
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=prob)
        if not 0 <= jitter < 0.5:
            raise SettingError(f"jitter is {jitter}; expected: 0 <= jitter < 0.5")
        self.window = (float(window[0]), float(window[1]))
        self.jitter = jitter
        self.steady = ScaleIntensityRanged(keys, window[0], window[1], b_min=0.0, b_max=1.0, clip=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with values in [0, 1]."""
        reach = self.jitter * (self.window[1] - self.window[0])
        low, high = (bound + self.R.uniform(-reach, reach) for bound in self.window)
        self.randomize(None)
        if not (self.jitter and self._do_transform):
            return dict(self.steady(dict(data)))
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = scale_window(item[key], low, high)
        return item
