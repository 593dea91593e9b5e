"""Labels: from codes to a binary mask or to classes, and from the mask to its edge."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform
from skimage.feature import canny
from torch import Tensor

from ..errors import SettingError, UserError
from .items import CLASS_CODES, CODE_TOLERANCE, EDGE, FINER, SECOND, UNKNOWN, UNKNOWN_CODE


def is_code(values: Tensor, codes: Sequence[int]) -> Tensor:
    """Whether values lie within `CODE_TOLERANCE` of one of some codes (bool, the same shape)."""
    whole = values.float().round()
    near = (values.float() - whole).abs() <= CODE_TOLERANCE
    return near & torch.isin(whole, torch.tensor(codes, dtype=whole.dtype, device=whole.device))


class InfectionMaskd(MapTransform):
    """Make the mask of infection from codes: all above 0, or an item's "KEY_codes".

    An item with "KEY_scale" has a soft mask, such as a network's probabilities: its values over
    that scale.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with float32 labels in {0, 1}, or in [0, 1] if soft."""
        item = dict(data)
        for key in self.key_iterator(item):
            label, codes, scale = item[key], item.get(f"{key}_codes"), item.get(f"{key}_scale")
            if scale is not None:
                item[key] = (label.float() / scale).clamp(0, 1)
                continue
            item[key] = (is_code(label, codes) if codes else label > CODE_TOLERANCE).float()
        return item


def class_numbers(codes: Tensor, name: str) -> Tensor:
    """Return the classes 0, 1, 2 of stored codes, in their type; UserError for other codes."""
    classes = torch.zeros_like(codes)
    known = torch.zeros_like(codes, dtype=torch.bool)
    for code, number in CLASS_CODES.items():
        here = (codes - code).abs() <= CODE_TOLERANCE
        known |= here
        classes[here] = number
    if not known.all():
        others = ", ".join(f"{value:g}" for value in codes[~known].unique()[:5].cpu().tolist())
        expected = "0 background, 1 or 38 ground glass, 2 or 75 consolidation"
        raise UserError(f"{name}: holds the values {others}; expected: {expected}")
    return classes


class MoreLabelsd(MapTransform):
    """Join a mask of infection with a finer one and with another annotator's, where there are any.

    The finer mask counts wherever it is known. Where annotators disagree the mask becomes
    `UNKNOWN`.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with labels in [0, 1] or `UNKNOWN`, without the other masks."""
        item = dict(data)
        finer, second = item.pop(FINER, None), item.pop(SECOND, None)
        for key in self.key_iterator(item):
            if finer is not None:
                known = ~is_code(finer, [UNKNOWN_CODE])
                item[key] = torch.where(known, (finer > CODE_TOLERANCE).to(item[key]), item[key])
            if second is not None:
                differs = (second > CODE_TOLERANCE) != (item[key] >= 0.5)
                item[key] = item[key].masked_fill(differs, UNKNOWN)
        return item


class ClassNumbersd(MapTransform):
    """`class_numbers` of multi-class labels as they were loaded."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with float32 classes in place of codes."""
        item = dict(data)
        for key in self.key_iterator(item):
            name = getattr(item[key], "meta", {}).get("filename_or_obj", key)
            item[key] = class_numbers(item[key].float(), str(name))
        return item


def inner_edge(mask: Tensor) -> Tensor:
    """Return the pixels of masks (B, 1, H, W) in {0, 1} with a neighbour (of 8) outside.

    These are g - erosion of g by 3x3. Outside of the image nothing is background, so a lesion cut
    by the border has no edge there.
    """
    return mask - _erode(mask)


def gradient_edge(mask: Tensor) -> Tensor:
    """Return the morphological gradient, dilation - erosion by 3x3, two pixels wide."""
    return F.max_pool2d(mask, kernel_size=3, stride=1, padding=1) - _erode(mask)


def sobel_edge(mask: Tensor) -> Tensor:
    """Pixels whose Sobel gradient magnitude exceeds 1.5, as in SCRN (shapes as `inner_edge`)."""
    kernel = mask.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([kernel, kernel.T]).unsqueeze(1)
    gradient = F.conv2d(F.pad(mask, (1, 1, 1, 1), mode="replicate"), kernels)  # (B, 2, H, W)
    return (gradient.square().sum(dim=1, keepdim=True).sqrt() > 1.5).to(mask.dtype)


def canny_edge(mask: Tensor) -> Tensor:
    """Canny edges with thresholds 10 and 150 on 255 * g, as in Inf-Net (shapes as `inner_edge`).

    A step has the same gradient on both of its sides; the pixels inside of the mask are kept.
    """
    edges = [canny(255.0 * g[0].cpu().numpy(), sigma=0, low_threshold=10, high_threshold=150) for g in mask]
    return mask * torch.stack([torch.from_numpy(edge).to(mask) for edge in edges]).unsqueeze(1)


def _erode(mask: Tensor) -> Tensor:
    return 1 - F.max_pool2d(1 - mask, kernel_size=3, stride=1, padding=1)


EDGE_METHODS = {"inner": inner_edge, "gradient": gradient_edge, "canny": canny_edge, "sobel": sobel_edge}


class EdgeLabeld(MapTransform):
    """Append the edge of a mask (1, H, W), values in [0, 1], as its second channel.

    It belongs last in a chain: the edge is that of the mask as resized and augmented, one pixel
    wide at the network's resolution. The paper generates edges "from the segmentation mask" and
    says no more. A soft mask has the edge of where it reaches 0.5. What is `UNKNOWN` counts as
    infection here: the outer edge of what annotators dispute is unknown itself.

    An item with "edge" (1, H, W) brings a published edge, which takes the place of the mask's.

    `method` is one of `EDGE_METHODS`, see the functions of these names; ValueError for others.
    """

    def __init__(self, keys: KeysCollection, method: str = "inner") -> None:
        super().__init__(keys)
        if method not in EDGE_METHODS:
            raise SettingError(f"method is {method!r}; expected: {', '.join(EDGE_METHODS)}")
        self.edge = EDGE_METHODS[method]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with labels (2, H, W): mask, edge."""
        item = dict(data)
        for key in self.key_iterator(item):
            mask = torch.as_tensor(item[key]).float()
            edge = self._edge_of(mask) if EDGE not in item else torch.as_tensor(item.pop(EDGE)).float()
            item[key] = torch.cat([mask, edge], dim=0)
        return item

    def _edge_of(self, mask: Tensor) -> Tensor:
        return self.edge(((mask >= 0.5) | (mask == UNKNOWN)).float().unsqueeze(0))[0]
