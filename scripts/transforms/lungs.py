"""Restrict a scan to the lungs, or to the box around them."""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys, convert_to_numpy
from numpy.typing import NDArray

from ..anatomy.downsampling import Spacing
from ..anatomy.field_of_view import Box, find_box, whole
from ..anatomy.lungs import Lungs, segment_lungs
from ..anatomy.outside import Zones, find_zones, why_kept
from ..anatomy.tissue import Tissues, segment_tissue
from ..errors import UserError
from ..io.volume import spacing_lps
from .items import CODE_TOLERANCE, UNKNOWN_CODE
from .labels import is_code
from .slice_input import OUTSIDE_HU

logger = logging.getLogger(__name__)

MOST_BOXES = 1024  # how many boxes a process remembers; a box and its key are some hundred bytes


class FindLungsd(MapTransform):
    """Give a scan in HU, canonical orientation, a lung mask: a given one, or one from thresholds.

    Thresholds also find what a given mask leaves unknown (255).
    Where the lungs that are found are not plausible (a picture, a part of a chest), the mask covers
    the whole scan and the log says why: infection that is masked away cannot be found any more.
    """

    def __init__(self, keys: str, lung_key: str) -> None:
        super().__init__(keys)
        self.lung_key = lung_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the mask (1, X, Y, Z); UserError for one empty or off the grid."""
        item = dict(data)
        for key in self.key_iterator(item):
            given = item.get(self.lung_key)
            item[self.lung_key] = _found(item[key]) if given is None else _given(given, item[key])
        return item


class LungsOnlyd(MapTransform):
    """Set what lies outside of a lung mask, which leaves the item, to `OUTSIDE_HU`."""

    def __init__(self, keys: str, lung_key: str) -> None:
        super().__init__(keys)
        self.lung_key = lung_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item without the mask."""
        item = dict(data)
        outside = item.pop(self.lung_key).as_tensor() == 0
        for key in self.key_iterator(item):
            item[key] = item[key].masked_fill(outside, OUTSIDE_HU)
        return item


class FindBoxd(MapTransform):
    """Find the box around the lungs of a scan in HU in LPS; a picture's is the whole of it.

    Where the lungs are not plausible (a part of a chest, one slice), it is the box around the body,
    and the log says why. Lung masks that come with a scan are not looked at: a new scan has none.
    The box of the same voxels is searched once a process, as long as it is among the `MOST_BOXES`
    asked for last: an experiment evaluates the same scans again and again, a server sees new ones
    for weeks.

    The box under `box_key` is int (3, 3): first voxel, the one after the last, and how many there
    are, along x, y, z. Where a `zones_key` is given and voxels have a size, the `Zones` of the
    scan come under it: {"codes", "steps"}. Those of the last scan are remembered.
    """

    _known: ClassVar[OrderedDict[bytes, Box]] = OrderedDict()
    _last: ClassVar[dict[bytes, Zones]] = {}

    def __init__(self, keys: str, box_key: str, zones_key: str | None = None) -> None:
        super().__init__(keys)
        self.box_key, self.zones_key = box_key, zones_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the box, and with the zones."""
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            shape = (image.shape[1], image.shape[2], image.shape[3])
            box, zones = (whole(shape), None) if image.meta.get("picture", False) else self._find(image)
            item[self.box_key] = np.array([(one.start, one.stop, size) for one, size in zip(box, shape, strict=True)])
            if self.zones_key and zones and image.meta.get("voxel_size_known", True):
                item[self.zones_key] = {"codes": zones.codes, "steps": np.array(zones.steps)}
        return item

    def _find(self, image: MetaTensor) -> tuple[Box, Zones | None]:
        hu, spacing = scan = _hounsfield(image)
        content = hashlib.sha256(repr((hu.shape, spacing)).encode())
        for plane in hu:  # one by one, so that no copy of the scan is made
            content.update(np.ascontiguousarray(plane).data)
        key = content.digest()
        box, zones = self._known.get(key), self._last.get(key)
        if box is None or (self.zones_key and zones is None):
            seen, lungs = _find_anatomy(image, scan, "its body is")
            self._known[key] = box = find_box(seen, lungs)
            if len(self._known) > MOST_BOXES:
                self._known.popitem(last=False)
            if self.zones_key:
                zones = find_zones(seen, lungs)
                FindBoxd._last = {key: zones}
                if (reason := why_kept(lungs)) is not None:
                    name = image.meta.get("filename_or_obj", "image")
                    logger.warning(f"{name}: nothing is removed for lying outside of the lungs: {reason}")
        self._known.move_to_end(key)
        return box, zones


class CropToBoxd(MapTransform, InvertibleTransform):
    """Crop slices of volumes (1, X, Y, Z), canonical orientation, to the box of `FindBoxd`.

    The inverse sets everything beyond the box to 0.
    """

    def __init__(self, keys: KeysCollection, box_key: str, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.box_key = box_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the slices cropped; UserError for another grid than the scan's."""
        item = dict(data)
        box = convert_to_numpy(item[self.box_key]).tolist()
        (left, right, width), (front, back, depth), (*_, height) = box
        for key in self.key_iterator(item):
            whole_slices = item[key]
            _check_grid(whole_slices, (width, depth, height), str(key))
            item[key] = whole_slices[:, left:right, front:back]
            item[key].affine = whole_slices.affine @ _shift(left, front)
            self.push_transform(item[key], extra_info={"box": box})
        return item

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with slices of the size that they had."""
        item = dict(data)
        for key in self.key_iterator(item):
            cropped = item[key]
            box = self.pop_transform(cropped)[TraceKeys.EXTRA_INFO]["box"]
            (left, right, columns), (front, back, rows), (low, high, _) = box
            filled = cropped.new_zeros((cropped.shape[0], columns, rows, cropped.shape[3]))
            filled[:, left:right, front:back, low:high] = cropped[..., low:high]
            filled.affine = cropped.affine @ _shift(-left, -front)
            item[key] = filled
        return item


class EmptyBeyondBoxd(MapTransform):
    """Set slices beyond a box, if there is one, to 0, as the inverse of `CropToBoxd` does."""

    def __init__(self, keys: KeysCollection, box_key: str) -> None:
        super().__init__(keys)
        self.box_key = box_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the slices emptied."""
        item = dict(data)
        if self.box_key in item:
            low, high, _ = convert_to_numpy(item[self.box_key])[2].tolist()
            for key in self.key_iterator(item):
                item[key] = item[key].clone()
                item[key][..., :low] = item[key][..., high:] = 0
        return item


def _shift(columns: int, rows: int) -> torch.Tensor:
    shift = torch.eye(4, dtype=torch.float64)
    shift[:2, 3] = torch.tensor([columns, rows])
    return shift


def _given(mask: MetaTensor, image: MetaTensor) -> MetaTensor:
    name = mask.meta.get("filename_or_obj", "lung mask")
    _check_grid(mask, tuple(image.shape[1:]), "lung mask")
    unknown = is_code(mask, [UNKNOWN_CODE])
    inside = (mask > CODE_TOLERANCE) & ~unknown
    if not inside.any():
        raise UserError(f"{name}: the lung mask is empty; expected: a mask with values above 0 in the lungs")
    lungs = inside.float()
    if unknown.any():
        lungs[unknown] = _found(image).to(lungs)[unknown]
    return lungs


def _check_grid(mask: MetaTensor, shape: tuple[int, ...], what: str) -> None:
    if tuple(mask.shape[1:]) != shape:
        sizes = [" x ".join(map(str, one)) for one in (mask.shape[1:], shape)]
        name = mask.meta.get("filename_or_obj", what)
        raise UserError(
            f"{name}: {sizes[0]} voxels, its image has {sizes[1]}; expected: a mask on the image's own grid"
        )


def _find_anatomy(image: MetaTensor, scan: tuple[NDArray[np.int16], Spacing], instead: str) -> tuple[Tissues, Lungs]:
    """Return the seen part of a scan and its lungs; log a fallback for implausible lungs."""
    seen = segment_tissue(*scan)
    lungs = segment_lungs(seen)
    if not lungs.plausible:
        name = image.meta.get("filename_or_obj", "image")
        logger.warning(f"{name}: {instead} used, no plausible lungs were found ({' '.join(lungs.doubts)})")
    return seen, lungs


def _hounsfield(image: MetaTensor) -> tuple[NDArray[np.int16], Spacing]:
    """Whole HU (X, Y, Z), as `HounsfieldSlices.rounded` gives them, and the voxel size in mm."""
    hu = image.as_tensor()[0].round().clamp(-32768, 32767).to(torch.int16).cpu().numpy()
    return hu, spacing_lps(convert_to_numpy(image.affine))


def _found(image: MetaTensor) -> MetaTensor:
    _, lungs = _find_anatomy(image, _hounsfield(image), "the whole scan is")
    if not lungs.plausible:
        return MetaTensor(torch.ones(image.shape), affine=image.affine)
    mask = np.stack([lungs.slab(index) > 0 for index in range(image.shape[-1])], axis=-1)
    return MetaTensor(torch.from_numpy(mask[None].astype(np.float32)), affine=image.affine)
