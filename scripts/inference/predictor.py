"""A trained network on its device, applied outside of a workflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..finite import check_maps
from ..transforms.items import BOX, IMAGE, scan_name
from .backends.choice import TORCH, Backend
from .building import trained_network
from .inferer import ScanInferer


class Predictor:
    """A trained network with what brings scans before it.

    Args:
        network: in evaluation mode, on the device.
        metadata: its checkpoint metadata.
        device: where it lies.
        test_time_flips: in place of the metadata's, see `view_count`.
        backend: what applies the network.
        layers: names of the layers whose channel means `features` collects.
        threshold: decision threshold that settles slices far below it, see `ScanInferer`.
    """

    def __init__(
        self,
        network: nn.Module,
        metadata: Mapping[str, Any],
        device: torch.device,
        test_time_flips: bool | int | None = None,
        backend: Backend = TORCH,
        layers: Sequence[str] = (),
        threshold: float | None = None,
    ) -> None:
        self.network, self.metadata, self.device = network, metadata, device
        self.inferer = ScanInferer(
            metadata, test_time_flips=test_time_flips, backend=backend, layers=layers, threshold=threshold
        )
        seen = metadata["preprocessing"]
        shape = seen.get("patch_size") or (seen["size"], seen["size"])
        self.inferer.prepare(network, (2 if "prior" in seen else 1, *shape))

    @classmethod
    def load(cls, checkpoint: str | Path, device: torch.device, *args: Any, **kwargs: Any) -> Predictor:
        """Load a checkpoint, see `trained_network`; what follows are arguments of the class."""
        return cls(*trained_network(checkpoint, device), device, *args, **kwargs)

    def __call__(self, images: Tensor, name: str | Path) -> Tensor:
        """Apply the network.

        Args:
            images: (B, C, size, size, Z), on any device.
            name: the scan's file, for messages.

        Returns:
            Logits (B, K, size, size, Z), float32 on the CPU.

        Raises:
            UserError: if a logit is not finite.
        """
        with torch.inference_mode():
            logits: Tensor = self.inferer(images.to(self.device), self.network).float().cpu()
        check_maps(logits, name)
        return logits

    def scan_logits(self, item: Mapping[str, Any], positions: NDArray[np.intp] | None = None) -> Tensor:
        """Apply the network to a scan that `Preprocessing` has prepared.

        Args:
            item: holds (1, X, Y, Z) under "image".
            positions: the slices that the network sees; None: those in its field of view.

        Returns:
            Logits (1, X, Y, Z) on the CPU; 0 for slices that the network does not see.

        Raises:
            UserError: if a logit is not finite.
        """
        image, seen = item[IMAGE].as_tensor(), slices_in_view(item) if positions is None else positions
        logits = torch.zeros(image.shape, dtype=torch.float32)
        if len(seen):
            logits[..., seen] = self(image[None, ..., seen], scan_name(item))[0]
        return logits


def slices_in_view(item: Mapping[str, Any]) -> NDArray[np.intp]:
    """Return which slices of a prepared scan lie in the network's field of view."""
    low, high = torch.as_tensor(item[BOX])[2, :2].cpu().tolist() if BOX in item else (0, item[IMAGE].shape[-1])
    return np.arange(low, high)
