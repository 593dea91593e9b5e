"""What the tests of several networks do alike."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor, nn

FUSIONS: list[dict[str, Any]] = [
    {},
    {"gate": "channelwise"},
    {"residual": "projected"},
    {"include_top": True},
    {"gate": "channelwise", "residual": "projected", "include_top": True},
    {"fusion": "add"},
    {"fusion": "concat"},
    {"fusion": "none"},
]
"""Arguments of the ResUNet that change its fusion; the first are the paper's."""


def variant_name(variant: dict[str, Any]) -> str:
    """Names arguments for the output of pytest."""
    return "-".join(f"{key}={value}" for key, value in variant.items()) or "paper"


def image(*shape: int, seed: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random numbers, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def slopes(model: nn.Module, x: Tensor, weight: Tensor, step: float) -> tuple[float, float]:
    """Slope of the weighted output along a random direction of all parameters.

    By the gradients, and by the difference of the values at one step forth and back.
    """
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(7)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) * 1e-2 for p in parameters]
    gradients = torch.autograd.grad((model(x) * weight).sum(), parameters)
    slope = sum((g * d).sum().item() for g, d in zip(gradients, direction, strict=True))

    def value_at(step: float) -> float:
        moved = {n: p + step * d for (n, p), d in zip(model.named_parameters(), direction, strict=True)}
        with torch.no_grad():
            return (torch.func.functional_call(model, moved, (x,)) * weight).sum().item()

    return slope, (value_at(step) - value_at(-step)) / (2 * step)


def reload(first: nn.Module, second: nn.Module) -> None:
    """Saves the weights of one network and loads them into another."""
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True), strict=True)
