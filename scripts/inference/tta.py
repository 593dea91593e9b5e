"""Test-time augmentation (TTA) by flips: the mean of a network's logits over mirrored inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FLIPPED_AXES = ((2,), (3,), (2, 3))
"""In-plane axes of (B, C, H, W) or (B, C, H, W, D) that are flipped, beside the image as it is."""


def average_over_flips(network: Callable[..., Tensor], images: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Average the logits of the image and of its three flips in plane, each flipped back.

    Args:
        network: from images to logits of the same size.
        images: (B, C, H, W) or (B, C, H, W, D).
        *args: what else the network takes.
        **kwargs: what else the network takes.

    Returns:
        Logits, (B, K, H, W) or (B, K, H, W, D).
    """
    total = network(images, *args, **kwargs)
    for axes in FLIPPED_AXES:
        total = total + torch.flip(network(torch.flip(images, axes), *args, **kwargs), axes)
    return total / (1 + len(FLIPPED_AXES))
