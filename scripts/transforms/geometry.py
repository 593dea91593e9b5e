"""Every input becomes a one-channel volume (1, X, Y, Z): scans as they are, pictures as one slice."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import MapTransform
from PIL import Image

from scripts.errors import UserError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
AXES = "LPS"
"""Canonical orientation: x to the patient's left, y to posterior, z to superior. A radiological display shows
a slice [x, y] of it in column x and row y: volumes and pictures reach the network the same way round."""


def is_picture(path: str) -> bool:
    """Whether a file is an 8-bit picture by its name, rather than a scan."""
    return path.lower().endswith(PICTURE_SUFFIXES)


def grey_values(picture: Image.Image) -> Image.Image:
    """Reads an 8-bit picture as grey (PIL converter for images).

    Raises:
        UserError: for more than 8 bits, which PIL would cut off at 255.
    """
    if picture.mode.startswith(("I", "F")):
        name = getattr(picture, "filename", "picture")
        raise UserError(f"{name}: more than 8 bits a pixel (mode {picture.mode}); accepted: 8-bit pictures, or NIfTI")
    return picture.convert("L")


def label_values(picture: Image.Image) -> Image.Image:
    """Reads the codes of a label picture: palette indices as they are, colour as grey (PIL converter)."""
    return picture if picture.mode in ("P", "L", "1", "I;16") else picture.convert("L")


class EnsureVolumed(MapTransform):
    """Brings channel-first images to (1, X, Y, Z).

    A picture (1, W, H) gets one slice and the affine of a radiological display, so that orienting it to LPS
    changes nothing; its metadata say `picture: True`. A two-dimensional scan gets one slice.

    Args:
        keys: images and labels as `LoadImaged` gives them, channel first.
        allow_missing_keys: whether an item may lack a key.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Returns the item with volumes.

        Raises:
            UserError: for several channels or time points, and for an empty image.
        """
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = _as_volume(item[key])
        return item


def _as_volume(image: MetaTensor) -> MetaTensor:
    name = str(image.meta.get("filename_or_obj", "image"))
    shape = tuple(image.shape)
    if shape[0] != 1 or len(shape) not in (3, 4) or 0 in shape:
        size = " x ".join(map(str, shape[1:]))
        raise UserError(
            f"{Path(name).name}: {shape[0]} channels or time points of {size} voxels; "
            "accepted: one slice or one volume with one value a voxel"
        )
    picture = is_picture(name)
    if len(shape) == 3:
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) if picture else image.affine
        meta = {key: value for key, value in image.meta.items() if key != "affine"}
        image = MetaTensor(image.as_tensor().unsqueeze(-1), affine=affine, meta=meta)
        image.meta["original_affine"] = np.asarray(image.affine)
        image.meta["spatial_shape"] = np.asarray(image.shape[1:])
    image.meta["picture"] = picture
    return image
