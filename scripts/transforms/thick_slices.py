"""Show a network slices as thick as other hospitals make them."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from .items import SLAB


class RandThickSliced(MapTransform, RandomizableTransform):
    """Average a slice in HU with one or more neighbours on either side, as a thick slice is made.

    An item holds them as "slab" (2 r + 1, H, W), see `SliceDataset`; without them it stays as it
    is. The label stays that of the slice in the middle.

    Args:
        keys: images (1, H, W).
        prob: probability of a thicker slice.
    """

    def __init__(self, keys: KeysCollection, prob: float = 1.0) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item without its slab."""
        item = dict(data)
        slab = item.pop(SLAB, None)
        self.randomize(None)
        if slab is None or not self._do_transform:
            return item
        middle = len(slab) // 2
        reach = int(self.R.randint(1, middle + 1))
        for key in self.key_iterator(item):
            item[key] = slab[middle - reach : middle + reach + 1].float().mean(dim=0, keepdim=True)
        return item
