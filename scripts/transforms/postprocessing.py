"""From the network's logits back to the scan: probabilities, the scan's own grid, the mask."""

from __future__ import annotations

import math
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
    RemoveSmallObjects,
    ToDeviced,
    Transform,
)
from monai.utils import convert_to_numpy
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from ..finite import check_maps
from ..io.volume import AXES
from ..settings import number
from .labels import CLASSES
from .lungs import EmptyBeyondBoxd
from .preprocessing import BOX, IMAGE

PRED = "pred"


def scan_name(item: Mapping[Any, Any]) -> str:
    """Returns the file that an item of a workflow was read from, or what the data list calls it."""
    meta = getattr(item.get(IMAGE), "meta", {})
    return str(meta.get("filename_or_obj") or item.get("name") or "a case")


class FiniteMapd(MapTransform):
    """Refuses an item whose map is not finite, see `check_maps`; the item stays as it is."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item."""
        item = dict(data)
        for key in self.key_iterator(item):
            check_maps(item[key], scan_name(item))
        return item


class Probabilities(Compose):
    """Logits to probabilities in float32, on the grid that the network saw; logits that are not finite are refused."""

    def __init__(self) -> None:
        steps = [FiniteMapd(PRED), EnsureTyped(PRED, dtype=torch.float32), Activationsd(PRED, sigmoid=True)]
        super().__init__(steps)


class ScanProbabilities(Compose):
    """Logits to probabilities (1, X, Y, Z) on the scan's own grid, in its stored orientation.

    The resize is inverted bilinearly, slice by slice because the slices keep their number.

    Args:
        preprocessing: what made the network's input from the scan.
    """

    def __init__(self, preprocessing: InvertibleTransform) -> None:
        invert = Invertd(PRED, transform=preprocessing, orig_keys=IMAGE, nearest_interp=False, to_tensor=True)
        super().__init__([Probabilities(), invert])


class EvaluationOutput(Compose):
    """Probabilities on the grid on which metrics are taken, in the label's canonical orientation.

    Args:
        preprocessing: what made the network's input from the scan.
        grid: "scan", or "network" for the paper's 256 x 256. What lies beyond the field of view in
            plane is judged on the scan's grid only; slices beyond it hold no prediction on either.
    """

    def __init__(self, preprocessing: InvertibleTransform, grid: str) -> None:
        steps: list[Transform] = [Probabilities(), EmptyBeyondBoxd(PRED, BOX)]
        if grid == "scan":
            orient = Orientationd(PRED, axcodes=AXES, labels=None)
            steps = [ScanProbabilities(preprocessing), orient]
        super().__init__(steps)


class ClassMaps(Compose):
    """Logits of classes (3, ...) to one binary map a class: where its probability is the largest of all.

    Args:
        probabilities: from logits to probabilities, on the grid on which the largest is looked for.
    """

    def __init__(self, probabilities: Transform) -> None:
        super().__init__([probabilities, AsDiscreted(PRED, argmax=True, to_onehot=len(CLASSES))])


def without_small_lesions(mask: NDArray[np.uint8], voxel_mm3: float, smallest_mm3: float) -> NDArray[np.uint8]:
    """Removes connected lesions of less than a volume; voxels that touch at a corner belong together.

    Works within the box around the infection, so a large scan with little infection needs little
    memory.

    Args:
        mask: (X, Y, Z) in {0, 1}; stays as it is.
        voxel_mm3: volume of a voxel.
        smallest_mm3: the smallest volume that stays; 0 keeps every lesion.

    Returns:
        The mask without them.
    """
    if smallest_mm3 <= 0 or not mask.any():
        return mask
    (box,) = find_objects(mask, max_label=1)
    cleaned = mask.copy()
    remove = RemoveSmallObjects(math.ceil(smallest_mm3 / voxel_mm3), connectivity=3)
    cleaned[box] = remove(np.ascontiguousarray(mask[box])[None])[0]
    return cleaned


class SmallLesionsRemovedd(MapTransform):
    """`without_small_lesions` for masks (1, X, Y, Z) on the scan's grid, with its affine.

    A picture has no voxel size, and its mask stays as it is.

    Args:
        keys: the masks.
        smallest_mm3: see `without_small_lesions`.
    """

    def __init__(self, keys: str, smallest_mm3: float = 0.0) -> None:
        super().__init__(keys)
        self.smallest_mm3 = smallest_mm3

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with the masks cleaned."""
        item = dict(data)
        for key in self.key_iterator(item):
            mask = item[key]
            if self.smallest_mm3 > 0 and not mask.meta.get("picture", False):
                voxel = float(abs(np.linalg.det(np.asarray(mask.affine)[:3, :3])))
                cleaned = without_small_lesions(convert_to_numpy(mask)[0], voxel, self.smallest_mm3)
                item[key] = MetaTensor(torch.from_numpy(cleaned)[None].to(mask.device), meta=mask.meta)
        return item


class InfectionMask(Compose):
    """Probabilities on the scan's grid to the mask, uint8 in {0, 1}, on the host.

    What follows is lesion labelling and writing, MONAI Label's own writers among them, and these
    work on the host.

    Args:
        preprocessing: what made the network's input from the scan.
        threshold: probability from which on a voxel is infection, in (0, 1); a text from a form is
            read as well.
        smallest_lesion_mm3: see `SmallLesionsRemovedd`.

    Raises:
        UserError: if the threshold or the smallest lesion lies outside of what makes sense.
    """

    def __init__(
        self,
        preprocessing: InvertibleTransform,
        threshold: float | str = 0.5,
        smallest_lesion_mm3: float | str = 0.0,
    ) -> None:
        probability = number("threshold", threshold, "a probability between 0 and 1", lambda value: 0 < value < 1)
        smallest = number("smallest_lesion_mm3", smallest_lesion_mm3, "mm3, 0 or more", lambda value: value >= 0)
        super().__init__(
            [
                ScanProbabilities(preprocessing),
                AsDiscreted(PRED, threshold=probability),
                CastToTyped(PRED, dtype=torch.uint8),
                ToDeviced(PRED, "cpu"),
                SmallLesionsRemovedd(PRED, smallest),
            ]
        )
