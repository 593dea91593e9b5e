"""Make a network's input of a slice: resize it, take the lungs, apply the HU window, z-score it.

Workflows apply `resize_slice` and `z_score` through transforms (`geometry.py`, `intensity.py`).
Their window is MONAI's `ScaleIntensityRanged`, in the configs and in `preprocessing.py`; its jitter
in training is `RandWindowd` in `intensity.py`. `segment` and `classify` stream slices through
`SliceInput`, which applies all of them and takes `scale_window` for the window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

DEFAULT_WINDOW = (-1250.0, 250.0)
"""What networks see of a scan unless they say otherwise, and what an 8-bit picture of unknown
window is taken for."""

OUTSIDE_HU = -32768.0
"""What voxels outside of the lungs become: below every HU window, so that they are 0 to the
network."""

LARGEST_SIZE = 4096
"""Edge length of the largest input in pixels."""

OWN_SIZE = -1
"""In place of an edge length, as MONAI writes it: slices keep the size that they have."""

DEFAULTS: dict[str, Any] = {
    "size": 256,
    "window": DEFAULT_WINDOW,
    "intensity": "auto",
    "z_score": True,
    "lung_only": False,
    "field_of_view": "scan",
}
"""What checkpoint metadata mean by a setting of the preprocessing that they leave out."""


def resize_slice(image: Tensor, size: Sequence[int]) -> Tensor:
    """Resize one slice (X, Y) bilinearly, without anti-aliasing."""
    return F.interpolate(image[None, None], size=tuple(size), mode="bilinear", align_corners=False)[0, 0]


def resize_mask_slice(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Resize one slice (X, Y) of a mask or a map, float, to the nearest pixel."""
    return F.interpolate(mask[None, None], size=tuple(size), mode="nearest-exact")[0, 0]


def scale_window(image: Tensor, low: float, high: float) -> Tensor:
    """Scale HU from [low, high] to [0, 1], and clip."""
    return ((image - low) / (high - low)).clamp(0, 1)


def z_score(image: Tensor) -> Tensor:
    """Return (x - mean) / (std + 1e-8) of one slice (X, Y); std is that of the population."""
    std, mean = torch.std_mean(image, correction=0)
    return (image - mean) / (std + 1e-8)


@dataclass(frozen=True)
class SliceInput:
    """Make a network's input of one slice, a function from HU (X, Y) to (size, size)."""

    size: int  # edge length of the network's input in pixels, or `OWN_SIZE`
    window: tuple[float, float]  # (LO, HI) in HU
    z_score: bool = True  # false leaves the z-score out

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> SliceInput:
        """Return what checkpoint metadata states."""
        stated = metadata["preprocessing"]
        low, high = stated["window"]
        return cls(int(stated["size"]), (float(low), float(high)), bool(stated.get("z_score", True)))

    def __call__(self, hu: Tensor, lungs: Tensor | None = None) -> Tensor:
        """Return the input (size, size) of a slice (X, Y), nothing outside of `lungs` (X, Y)."""
        resized = hu if self.size == OWN_SIZE else resize_slice(hu, (self.size, self.size))
        if lungs is not None:
            outside = resize_mask_slice(lungs.float(), resized.shape) == 0
            resized = resized.masked_fill(outside, OUTSIDE_HU)
        windowed = scale_window(resized, *self.window)
        return z_score(windowed) if self.z_score else windowed


def each_slice(image: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a change (X, Y) to (X', Y') to every slice by itself, each contiguous in memory.

    A slice's result must not depend on how many slices there are or how they lie. Then a streamed
    scan gives the same bits as a scan that is held as a whole.

    Returns:
        (C, X', Y') of an image (C, X, Y), (C, X', Y', Z) of one (C, X, Y, Z), with its metadata.
    """
    plain = without_metadata(image)
    stack = plain[..., None] if plain.ndim == 3 else plain
    channels = [
        torch.stack([change(channel[..., z].contiguous()) for z in range(stack.shape[-1])], dim=-1) for channel in stack
    ]
    changed = torch.stack(channels)
    changed = changed[..., 0] if plain.ndim == 3 else changed
    return with_metadata_of(image, changed)


def without_metadata(image: Tensor) -> Tensor:
    """Return the plain tensor of one that may be MONAI's, which is not imported for that."""
    return image.as_tensor() if hasattr(image, "as_tensor") else image


def with_metadata_of(image: Tensor, changed: Tensor) -> Tensor:
    """Return a tensor with type and metadata of an image that may be MONAI's."""
    if not hasattr(image, "as_tensor"):
        return changed
    from monai.utils import convert_to_dst_type  # importing MONAI takes seconds; `segment` does without

    return convert_to_dst_type(changed, image)[0]
