"""Make the lungs the second target of a network that finds infection."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Compose, MapTransform

from .items import CODE_TOLERANCE, IMAGE, LABEL, LUNG, UNKNOWN, UNKNOWN_CODE
from .labels import is_code
from .preprocessing import load_mask


class AppendLungsd(MapTransform):
    """Append lungs to infection labels (1, X, Y, Z) as the second target; the mask leaves the item.

    What a mask leaves unknown (255), and the lungs of an item without a mask, become `UNKNOWN`. A
    scan without label is one without infection. Image, mask and label lie on the same grid, except
    that the image may have been resized.
    """

    def __init__(self, keys: str, lung_key: str, image_key: str) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.lung_key, self.image_key = lung_key, image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with labels (2, X, Y, Z), float32: {0, 1}, in the second also -1."""
        item = dict(data)
        lung = item.pop(self.lung_key, None)
        for key in self.keys:
            if item.get(key) is None:
                item[key] = torch.zeros_like(item[self.image_key] if lung is None else lung, dtype=torch.float32)
            infection = item[key]
            lungs = torch.full_like(infection, UNKNOWN)
            if lung is not None:
                lungs = (lung > CODE_TOLERANCE).to(infection).masked_fill(is_code(lung, [UNKNOWN_CODE]), UNKNOWN)
            item[key] = torch.cat([infection, lungs])
        return item


def append_lungs() -> Compose:
    """Return the steps that load the lung mask of a case, if any, and append it to its label."""
    return Compose([*load_mask(LUNG), AppendLungsd(LABEL, LUNG, IMAGE)])
