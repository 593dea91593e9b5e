"""A network before a whole scan that `Preprocessing` has prepared, outside of a workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from numpy.typing import NDArray
from torch import Tensor, nn

from ..finite import check_maps
from ..transforms.postprocessing import scan_name
from ..transforms.preprocessing import BOX, IMAGE


def looked_at(item: Mapping[str, Any]) -> NDArray[np.intp]:
    """Which slices of a prepared scan lie in the network's field of view."""
    low, high = item[BOX][2, :2].tolist() if BOX in item else (0, item[IMAGE].shape[-1])
    return np.arange(low, high)


def scan_logits(
    item: Mapping[str, Any],
    network: nn.Module,
    inferer: Inferer,
    device: torch.device,
    positions: NDArray[np.intp] | None = None,
) -> Tensor:
    """Applies a network that finds infection to a scan.

    Args:
        item: what `Preprocessing` makes of it, (1, X, Y, Z) under "image".
        network: the network.
        inferer: see `inferer_from_metadata`.
        device: where the network lies.
        positions: the slices that it sees; None: those in its field of view.

    Returns:
        Logits (1, X, Y, Z) on the CPU; 0 for slices that the network does not see.

    Raises:
        UserError: if a logit is not finite.
    """
    image, seen = item[IMAGE].as_tensor(), looked_at(item) if positions is None else positions
    logits = torch.zeros(image.shape)
    if len(seen):
        with torch.inference_mode():
            logits[..., seen] = inferer(image[None, ..., seen].to(device), network)[0].float().cpu()
        check_maps(logits, scan_name(item))
    return logits
