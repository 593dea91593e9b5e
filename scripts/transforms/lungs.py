"""Nothing but the lungs: what a network sees that is trained on scans with everything else taken out."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from scripts.anatomy.lungs import segment_lungs
from scripts.anatomy.overview import look_over
from scripts.errors import UserError

logger = logging.getLogger(__name__)

OUTSIDE_HU = -32768.0
"""What voxels outside of the lungs become: below every HU window, so that they are 0 to the network."""


class FindLungsd(MapTransform):
    """Makes sure that a scan has a lung mask on its own grid: the one that came with it, or what thresholds find.

    Where the lungs that are found are not plausible (a picture, a part of a chest), the mask covers the whole scan and
    the log says why: infection that is masked away cannot be found any more.

    Args:
        keys: the scan in HU, canonical orientation.
        lung_key: the mask, which may be absent.
    """

    def __init__(self, keys: str, lung_key: str) -> None:
        super().__init__(keys)
        self.lung_key = lung_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with the mask (1, X, Y, Z), float32 in {0, 1}.

        Raises:
            UserError: if a given mask is empty or lies on another grid.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            given = item.get(self.lung_key)
            item[self.lung_key] = _found(item[key]) if given is None else _given(given, item[key])
        return item


class LungsOnlyd(MapTransform):
    """Sets what lies outside of the lungs to `OUTSIDE_HU`.

    Args:
        keys: scans in HU.
        lung_key: a mask of the same size; it leaves the item.
    """

    def __init__(self, keys: str, lung_key: str) -> None:
        super().__init__(keys)
        self.lung_key = lung_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item without the mask."""
        item = dict(data)
        outside = item.pop(self.lung_key).as_tensor() == 0
        for key in self.key_iterator(item):
            item[key] = item[key].masked_fill(outside, OUTSIDE_HU)
        return item


def _given(mask: MetaTensor, image: MetaTensor) -> MetaTensor:
    name = mask.meta.get("filename_or_obj", "lung mask")
    if mask.shape != image.shape:
        sizes = [" x ".join(map(str, one.shape[1:])) for one in (mask, image)]
        raise UserError(
            f"{name}: {sizes[0]} voxels, its image has {sizes[1]}; accepted: a mask on the image's own grid"
        )
    if not mask.any():
        raise UserError(f"{name}: the lung mask is empty; accepted: a mask with values above 0 in the lungs")
    return (mask > 0).float()


def _found(image: MetaTensor) -> MetaTensor:
    x, y, z = image.pixdim.tolist()
    lungs = segment_lungs(look_over(image.as_tensor()[0].numpy(), (x, y, z)))
    if not lungs.plausible:
        name = image.meta.get("filename_or_obj", "image")
        logger.warning(f"{name}: the whole scan is used, no plausible lungs were found ({' '.join(lungs.doubts)})")
        return MetaTensor(torch.ones(image.shape), affine=image.affine)
    mask = np.stack([lungs.slab(index) > 0 for index in range(image.shape[-1])], axis=-1)
    return MetaTensor(torch.from_numpy(mask[None].astype(np.float32)), affine=image.affine)
