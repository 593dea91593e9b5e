"""Test-time flips: the mean of what a network says of an image and of its mirror images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

MIRRORED = ((2,), (3,), (2, 3))
"""In-plane axes of (B, C, H, W) or (B, C, H, W, D) that are flipped, beside the image as it is."""


def average_over_flips(network: Callable[..., Tensor], images: Tensor, *arguments: Any, **settings: Any) -> Tensor:
    """Mean of the logits over the image and its three mirror images in plane, each turned back.

    Args:
        network: from images to logits of the same size.
        images: (B, C, H, W) or (B, C, H, W, D).
        *arguments: what else the network takes.
        **settings: what else the network takes.

    Returns:
        Logits, (B, K, H, W) or (B, K, H, W, D).
    """
    total = network(images, *arguments, **settings)
    for axes in MIRRORED:
        total = total + torch.flip(network(torch.flip(images, axes), *arguments, **settings), axes)
    return total / (1 + len(MIRRORED))


class FlipInferer(Inferer):
    """An inferer whose network sees every slice or patch in four mirror images.

    Args:
        inferer: what brings slices or patches before the network.
    """

    def __init__(self, inferer: Inferer) -> None:
        super().__init__()
        self.inferer = inferer

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *arguments: Any, **settings: Any) -> Any:
        """Returns what the inferer makes of the averaged logits."""

        def averaged(images: Tensor, *rest: Any, **more: Any) -> Tensor:
            return average_over_flips(network, images, *rest, **more)

        return self.inferer(inputs, averaged, *arguments, **settings)
