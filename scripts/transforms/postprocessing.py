"""Bring logits back to the scan: probabilities, the scan's own grid, the mask."""

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    CastToTyped,
    Compose,
    EnsureTyped,
    Invertd,
    InvertibleTransform,
    MapTransform,
    Orientationd,
    ToDeviced,
    Transform,
)
from monai.utils import convert_to_numpy

from ..anatomy.outside import Zones, remove_outside
from ..errors import SettingError
from ..finite import check_maps
from ..io.volume import AXES, canonical, spacing_lps
from ..settings import amount, decision_threshold, flag
from .items import BOX, CLASSES, IMAGE, PRED, ZONES, scan_name
from .lungs import EmptyBeyondBoxd
from .small_lesions import without_small_lesions
from .through_plane import SliceMeans, neighbour_weights

logger = logging.getLogger(__name__)

GRIDS = "scan", "network"
"""On which metrics are computed."""


class FiniteMapd(MapTransform):
    """Refuse an item whose map is not finite, see `check_maps`."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item."""
        item = dict(data)
        for key in self.key_iterator(item):
            check_maps(item[key], scan_name(item))
        return item


class Probabilities(Compose):
    """Turn finite logits into probabilities in float32, on the network's grid."""

    def __init__(self) -> None:
        steps = [FiniteMapd(PRED), EnsureTyped(PRED, dtype=torch.float32), Activationsd(PRED, sigmoid=True)]
        super().__init__(steps)


def _has_voxel_size(scan: MetaTensor) -> bool:
    return not scan.meta.get("picture", False) and bool(scan.meta.get("voxel_size_known", True))


class ThroughPlaneMeand(MapTransform):
    """Average maps (K, X, Y, Z) over the neighbours of each axial slice.

    Pictures, and scans of unknown voxel size, stay as they are.

    Args:
        keys: the maps.
        sigma_mm: see `neighbour_weights`.
        cropped: whether the network saw the slices of the item's "box" only.
    """

    def __init__(self, keys: str, sigma_mm: float, cropped: bool = True) -> None:
        super().__init__(keys)
        self.sigma_mm, self.cropped = sigma_mm, cropped

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the maps averaged."""
        item = dict(data)
        image = item[IMAGE]
        if not self.sigma_mm or not _has_voxel_size(image):
            return item
        stored = convert_to_numpy(image.meta["original_affine"]).astype(np.float64)
        spacing = spacing_lps(stored)[2]
        low, high = 0, image.shape[-1]
        if self.cropped and BOX in item:
            low, high = convert_to_numpy(item[BOX])[2, :2].tolist()
        for key in self.key_iterator(item):
            means = SliceMeans(neighbour_weights(self.sigma_mm, spacing), high - low)
            item[key] = maps = item[key].clone()
            for place in range(low, high):
                for index, mean in means.add(maps[..., place].clone()):
                    maps[..., low + index] = mean
        return item


class ScanProbabilities(Compose):
    """Turn logits into probabilities (1, X, Y, Z) on the scan's grid, in its stored orientation.

    The resize of `preprocessing`, which made the network's input, is inverted bilinearly, slice by
    slice because the slices keep their number. `through_plane_mm` and `cropped` are those of
    `ThroughPlaneMeand`.
    """

    def __init__(self, preprocessing: InvertibleTransform, through_plane_mm: float = 0.0, cropped: bool = True) -> None:
        mean = ThroughPlaneMeand(PRED, through_plane_mm, cropped)
        invert = Invertd(PRED, transform=preprocessing, orig_keys=IMAGE, nearest_interp=False, to_tensor=True)
        super().__init__([Probabilities(), mean, invert])


class EvaluationOutput(Compose):
    """Turn logits into probabilities on the grid of the metrics, in canonical orientation.

    The `grid` is "scan", or "network" for the paper's 256 x 256. Voxels beyond the field of view in
    plane exist on the scan's grid only; slices beyond it hold no prediction on either.
    `through_plane_mm` is that of `ThroughPlaneMeand`.
    """

    def __init__(self, preprocessing: InvertibleTransform, grid: str, through_plane_mm: float = 0.0) -> None:
        if grid not in GRIDS:
            raise SettingError(f"metric_grid is {grid!r}; expected: {', '.join(GRIDS)}")
        mean = ThroughPlaneMeand(PRED, through_plane_mm)
        steps: list[Transform] = [Probabilities(), mean, EmptyBeyondBoxd(PRED, BOX)]
        if grid == "scan":
            orient = Orientationd(PRED, axcodes=AXES, labels=None)
            steps = [ScanProbabilities(preprocessing, through_plane_mm), orient]
        super().__init__(steps)


class ClassMaps(Compose):
    """Turn multi-class logits (3, ...) into one binary map per class, by the largest probability.

    `probabilities` turns logits into probabilities, on the grid on which they are compared.
    """

    def __init__(self, probabilities: Transform) -> None:
        super().__init__([probabilities, AsDiscreted(PRED, argmax=True, to_onehot=len(CLASSES))])


class SmallLesionsRemovedd(MapTransform):
    """Apply `without_small_lesions` to masks (1, X, Y, Z) on the scan's grid.

    Masks of pictures, and of scans of unknown voxel size, stay as they are.
    """

    def __init__(self, keys: str, smallest_mm3: float = 0.0) -> None:
        super().__init__(keys)
        self.smallest_mm3 = smallest_mm3

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the masks cleaned."""
        item = dict(data)
        for key in self.key_iterator(item):
            mask = item[key]
            if self.smallest_mm3 > 0 and _has_voxel_size(mask):
                voxel = float(abs(np.linalg.det(convert_to_numpy(mask.affine)[:3, :3])))
                cleaned = without_small_lesions(convert_to_numpy(mask)[0], voxel, self.smallest_mm3)
                item[key] = MetaTensor(torch.from_numpy(cleaned)[None].to(mask.device), meta=mask.meta)
        return item


class OutsideRemovedd(MapTransform):
    """Apply `remove_outside` to masks (1, X, Y, Z) on the scan's grid, if the item holds zones."""

    def __init__(self, keys: str, zones_key: str) -> None:
        super().__init__(keys)
        self.zones_key = zones_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the masks cleaned; the log says how much was removed."""
        item = dict(data)
        found: Mapping[str, Any] = item.get(self.zones_key, {})
        for key in self.key_iterator(item) if found else ():
            x, y, z = convert_to_numpy(found["steps"]).tolist()
            mask, zones = item[key], Zones(convert_to_numpy(found["codes"]), (x, y, z))
            cleaned = convert_to_numpy(mask).copy()
            removed = remove_outside(canonical(cleaned[0], convert_to_numpy(mask.affine)), zones)
            item[key] = MetaTensor(torch.from_numpy(cleaned).to(mask.device), meta=mask.meta)
            counts = f"{removed.outside_body} voxels outside of the body, {removed.outside_lungs} outside of the lungs"
            logger.info(f"{scan_name(item)}: removed {counts}")
        return item


class InfectionMask(Compose):
    """Turn logits into the mask on the scan's grid, uint8 in {0, 1}, on the CPU.

    Lesion labelling and all writers, MONAI Label's too, work there.

    Args:
        preprocessing: what made the network's input from the scan.
        threshold: decision threshold in (0, 1); text from a form is read as well.
        smallest_lesion_mm3: see `without_small_lesions`.
        keep_outside: keeps marks outside of the body and the lungs, see `remove_outside`.
        through_plane_mm: averages over neighbouring slices, see `ThroughPlaneMeand`.
        cropped: whether the network saw the item's "box" only.

    Raises:
        UserError: if the threshold or the smallest lesion lies outside of what makes sense.
    """

    def __init__(
        self,
        preprocessing: InvertibleTransform,
        threshold: float | str = 0.5,
        smallest_lesion_mm3: float | str = 0.0,
        keep_outside: bool | str = False,
        through_plane_mm: float = 0.0,
        cropped: bool = True,
    ) -> None:
        probability = decision_threshold(threshold)
        smallest = amount("smallest_lesion_mm3", smallest_lesion_mm3, "mm3, 0 or more")
        mask = [AsDiscreted(PRED, threshold=probability), CastToTyped(PRED, dtype=torch.uint8), ToDeviced(PRED, "cpu")]
        outside = [] if flag(keep_outside, "keep_outside") else [OutsideRemovedd(PRED, ZONES)]
        maps = ScanProbabilities(preprocessing, through_plane_mm, cropped)
        super().__init__([maps, *mask, *outside, SmallLesionsRemovedd(PRED, smallest)])
