"""A network as torch applies it, in float32 or in bfloat16, with channel means of its layers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class TorchNetwork(nn.Module):
    """Apply a network by torch.

    Args:
        network: in evaluation mode, on its device.
        precision: "bf16" computes under autocast; "fp32" as the network stands.
        layers: names of layers whose channel means are returned as well.
    """

    def __init__(self, network: nn.Module, precision: str = "fp32", layers: Sequence[str] = ()) -> None:
        super().__init__()
        self.network, self.precision, self.layers = network, precision, tuple(layers)

    def forward(self, images: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """Map images (B, C, ...) to logits (B, K, ...); with layers also to their means, (B, M)."""
        low = self.precision == "bf16"
        with torch.autocast(images.device.type, torch.bfloat16) if low else nullcontext():
            if not self.layers:
                return (self.network(images, *args, **kwargs),)
            seen: dict[str, Tensor] = {}
            with ExitStack() as hooks:
                for name in self.layers:
                    layer = self.network.get_submodule(name)
                    hook = layer.register_forward_hook(lambda *call, name=name: seen.update({name: call[-1]}))
                    hooks.callback(hook.remove)
                logits = self.network(images, *args, **kwargs)
            return logits, torch.cat([seen[name].float().mean(dim=(2, 3)) for name in self.layers], dim=1)
