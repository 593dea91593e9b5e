"""Training steps to time: the ResUNet's, and a plain stack of 3x3 convolutions of like sizes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..inference.inferer import NetworkInferer
from ..losses.cosupervision import CoSupervisionLoss
from ..networks.blocks import initialise_convolutions
from ..networks.registry import create_network
from ..precision import mixed_precision
from ..settings import memory_format

STACK = ((1, 3), (1, 9), (2, 11), (4, 15), (8, 8))
"""Channels as multiples of the width, and number of convolutions, at 1, 1/2, ... 1/16 of the size:
those of the ResUNet's encoder and decoder together."""


@dataclass
class Step:
    """A training step: forward pass, loss, backward pass, Adam, on the same random batch.

    Attributes:
        network: what is trained.
        loss: from its output to a scalar.
        image: the batch, (B, 1, size, size).
        amp: see `mixed_precision`; float16 is computed without a scaler.
        gflop: operations of its convolutions, forward and backward, in 10^9.
        seconds: what the calls so far took.
    """

    network: nn.Module
    loss: Callable[[Tensor], Tensor]
    image: Tensor
    amp: str
    gflop: float = field(init=False)
    seconds: list[float] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.network.train()
        self.infer = NetworkInferer(self.amp)
        self.optimizer = torch.optim.Adam(self.network.parameters(), fused=True)
        with FlopCounterMode(display=False) as counter:
            self()
        self.gflop = counter.get_total_flops() / 1e9
        self.seconds.clear()

    def __call__(self) -> None:
        """Take one step, and note its seconds."""
        started = time.perf_counter()
        self.optimizer.zero_grad()
        self.loss(self.infer(self.image, self.network)).backward()
        self.optimizer.step()
        if self.image.device.type == "cuda":
            torch.cuda.synchronize(self.image.device)
        self.seconds.append(time.perf_counter() - started)


def training_steps(width: int, size: int, batch: int, device: torch.device, amp: str = "auto") -> dict[str, Step]:
    """Return the steps of "ResUNet C_2F" and "plain stack", channels last where it is used.

    Args:
        width: base width of the network, channels of the stack at full size.
        size: edge length of the slices in pixels, a multiple of 16.
        batch: slices in a step.
        device: where the networks work.
        amp: see `mixed_precision`.
    """
    network = create_network("resunet", base_width=width)
    label = (torch.rand(batch, 2, size, size, device=device) > 0.9).float()
    supervised = CoSupervisionLoss().to(device)
    image = torch.randn(batch, 1, size, size, device=device)
    parts: list[tuple[str, nn.Module, Callable[[Tensor], Tensor]]] = [
        ("ResUNet C_2F", network, lambda logits: supervised(logits, label)),
        ("plain stack", plain_stack(width), lambda features: features.float().square().mean()),
    ]
    for _, one, _ in parts:
        one.to(device=device, memory_format=memory_format(True, device, one))  # type: ignore[call-overload]
    return {name: Step(one, loss, image, amp) for name, one, loss in parts}


def plain_stack(width: int) -> nn.Module:
    """Build 3x3 convolutions and ReLUs in a row, with max-pools between the sizes of `STACK`."""
    layers: list[nn.Module] = []
    before = 1
    for factor, convolutions in STACK:
        layers += [nn.MaxPool2d(2)] if layers else []
        for _ in range(convolutions):
            layers += [nn.Conv2d(before, factor * width, 3, padding=1), nn.ReLU(inplace=True)]
            before = factor * width
    stack = nn.Sequential(*layers)
    initialise_convolutions(stack)  # else its values and gradients fade, and such numbers are slow
    return stack


def step_speed(
    width: int, size: int, batch: int, device: torch.device, amp: str = "auto", repeats: int = 5
) -> dict[str, Any]:
    """Time both steps in turns.

    Args:
        width: see `training_steps`, as for the other settings.
        size: edge length of the slices.
        batch: slices in a step.
        device: where the networks work.
        amp: see `mixed_precision`.
        repeats: calls of each, after one that warms up.

    Returns:
        "precision"; per step its median "seconds", "gflop" and "gflop_per_second"; and
        "fraction_of_plain": the network's 10^9 operations per second over the stack's.
    """
    steps = training_steps(width, size, batch, device, amp)
    for _ in range(repeats):
        for step in steps.values():
            step()
    rows = {
        name: {
            "seconds": median(step.seconds),
            "gflop": step.gflop,
            "gflop_per_second": step.gflop / median(step.seconds),
        }
        for name, step in steps.items()
    }
    ours, plain = (row["gflop_per_second"] for row in rows.values())
    precision = str(mixed_precision(amp, device)).removeprefix("torch.")
    return {"precision": precision, "steps": rows, "fraction_of_plain": ours / plain}
