"""A network as torch applies it, in float32 or in bfloat16, with what one of its layers gives."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class TorchNetwork(nn.Module):
    """Apply a network by torch.

    Args:
        network: in evaluation mode, on its device.
        precision: "bf16" computes under autocast; "fp32" as the network stands.
        layer: name of the layer whose output is returned as well; None: of none.
    """

    def __init__(self, network: nn.Module, precision: str = "fp32", layer: str | None = None) -> None:
        super().__init__()
        self.network, self.precision, self.layer = network, precision, layer

    def forward(self, images: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """Map images (B, C, ...) to logits (B, K, ...); with a layer also to its output."""
        low = self.precision == "bf16"
        with torch.autocast(images.device.type, torch.bfloat16) if low else nullcontext():
            if self.layer is None:
                return (self.network(images, *args, **kwargs),)
            seen: list[Tensor] = []
            keep = self.network.get_submodule(self.layer).register_forward_hook(lambda *call: seen.append(call[-1]))
            try:
                return self.network(images, *args, **kwargs), seen[-1]
            finally:
                keep.remove()
