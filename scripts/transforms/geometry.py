"""Bring every input to a one-channel volume (1, X, Y, Z); 2-D images become one slice."""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import convert_to_numpy
from torch import Tensor

from ..errors import UserError
from ..io.grids import Grid, check_belongs
from ..io.images import is_picture
from ..io.volume import LPS_TO_RAS
from .slice_input import LARGEST_SIZE, OWN_SIZE, each_slice, resize_slice

SIZE_STEP = 16  # networks halve the edge length of their input four times


def check_size(size: int | str, name: str = "spatial_size") -> None:
    """Raise UserError for an edge length that is too large, or that networks cannot halve."""
    if not isinstance(size, int) or not SIZE_STEP <= size <= LARGEST_SIZE or size % SIZE_STEP:
        expected = f"multiples of {SIZE_STEP} up to {LARGEST_SIZE:,}, which the networks can halve"
        raise UserError(f"{name} is {size!r}; expected: {expected}")


def scale_range(augment_scale: Sequence[float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the `scale_range` of MONAI's affine augmentation for both axes; it counts from 1.

    `augment_scale` is the smallest and the largest part of the slice's edge length that
    augmentation shows; below 1 it looks closer. UserError if these are no such pair.

    >>> scale_range([0.5, 1.25])
    ((-0.5, 0.25), (-0.5, 0.25))
    """
    try:
        low, high = (float(bound) - 1 for bound in augment_scale)
    except (TypeError, ValueError):
        low, high = 0.0, -1.0
    if not -1 < low <= high:
        expected = "[LOW, HIGH] with 0 < LOW <= HIGH, such as [0.8, 1.2]"
        raise UserError(f"augment_scale is {augment_scale!r}; expected: {expected}")
    return (low, high), (low, high)


class ResizeSlicesd(MapTransform, InvertibleTransform):
    """Resize slices of volumes (1, X, Y, Z), float, bilinearly in plane to size x size pixels.

    Each slice is resized by itself; the inverse is bilinear, too. See `check_size` for sizes;
    `OWN_SIZE` leaves them as they are.
    """

    def __init__(self, keys: KeysCollection, size: int) -> None:
        super().__init__(keys)
        if size != OWN_SIZE:
            check_size(size)
        self.size = (size, size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with slices of the new size; the affine follows."""
        item = dict(data)
        for key in self.key_iterator(item):
            before = tuple(item[key].shape[1:3])
            item[key] = _resize_slices(item[key], before if OWN_SIZE in self.size else self.size)
            self.push_transform(item[key], orig_size=before)
        return item

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with slices of the size that they had."""
        item = dict(data)
        for key in self.key_iterator(item):
            before = self.pop_transform(item[key])["orig_size"]
            item[key] = _resize_slices(item[key], before)
        return item


def _resize_slices(image: MetaTensor, size: Sequence[int]) -> MetaTensor:
    resized: MetaTensor = each_slice(image, partial(resize_slice, size=size))
    resized.affine = _scaled(image.affine, image.shape[1:3], size)
    return resized


def _scaled(affine: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """The affine of a volume whose slices cover the same area with other voxels."""
    factor = torch.tensor([before[0] / after[0], before[1] / after[1], 1.0, 1.0], dtype=torch.float64)
    scale = torch.diag(factor)
    scale[:3, 3] = (factor[:3] - 1) / 2  # the outer borders stay, not the outer voxels' centres
    return affine.to(torch.float64) @ scale


class EnsureVolumed(MapTransform):
    """Bring channel-first images and labels, as `LoadImaged` gives them, to (1, X, Y, Z).

    A picture (1, W, H) gets one slice and the affine of a radiological display, so that orienting
    it to LPS changes nothing; its metadata say `picture: True`. A two-dimensional scan gets one
    slice.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with volumes; UserError for several channels and for an empty image."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = _as_volume(item[key])
        return item


class BelongsToImaged(MapTransform):
    """Refuse a label or mask whose voxels are not those of its image, stored in whatever order.

    It stands behind `EnsureVolumed`. Image and label are looked at as their files hold them, so
    that the image may have been cropped or resized meanwhile.
    """

    def __init__(self, keys: KeysCollection, image_key: str, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item as it is; UserError as `check_belongs`."""
        item = dict(data)
        for key in self.key_iterator(item):
            check_belongs(_stored_grid(item[key], str(key)), _stored_grid(item[self.image_key], self.image_key))
        return item


def _stored_grid(image: MetaTensor, what: str) -> Grid:
    shape = tuple(int(length) for length in image.meta["spatial_shape"])
    affine = np.asarray(convert_to_numpy(image.meta["original_affine"]), dtype=np.float64)
    return Grid(str(image.meta.get("filename_or_obj", what)), shape, affine)


def _as_volume(image: MetaTensor) -> MetaTensor:
    name = str(image.meta.get("filename_or_obj", "image"))
    shape = tuple(image.shape)
    if shape[0] != 1 or len(shape) not in (3, 4) or 0 in shape:
        size = " x ".join(map(str, shape[1:]))
        raise UserError(
            f"{Path(name).name}: {shape[0]} channels or time points of {size} voxels; "
            "expected: one slice or one volume with one value a voxel"
        )
    picture = is_picture(name)
    if len(shape) == 3:
        affine = LPS_TO_RAS if picture else image.affine
        meta = {key: value for key, value in image.meta.items() if key != "affine"}
        image = MetaTensor(image.as_tensor().unsqueeze(-1), affine=affine, meta=meta)
        image.meta["original_affine"] = convert_to_numpy(image.affine)
        image.meta["spatial_shape"] = np.asarray(image.shape[1:])
    image.meta["picture"] = picture
    return image
