"""A network before a whole scan that `Preprocessing` has prepared, outside of a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn
from torch.nn.functional import pad

from scripts.transforms.preprocessing import BOX, IMAGE


def looked_at(item: Mapping[str, Any]) -> slice:
    """Which slices of a prepared scan lie in the network's field of view."""
    depth = item[IMAGE].shape[-1]
    low, high = item[BOX][2, :2].tolist() if BOX in item else (0, depth)
    return slice(low, high)


def scan_logits(item: Mapping[str, Any], network: nn.Module, inferer: Inferer, device: torch.device) -> Tensor:
    """Applies a network to a scan.

    Args:
        item: what `Preprocessing` makes of it, (1, X, Y, Z) under "image".
        network: the network.
        inferer: see `inferer_from_card`.
        device: where the network lies.

    Returns:
        Logits (C, X, Y, Z) on the CPU; 0 for slices beyond the field of view, which the network does not see.
    """
    image, inside = item[IMAGE].as_tensor(), looked_at(item)
    with torch.inference_mode():
        logits = inferer(image[None, ..., inside].to(device), network)[0].float().cpu()
    return pad(logits, (inside.start, image.shape[-1] - inside.stop))
