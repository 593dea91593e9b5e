"""Training steps to time: the ResUNet's, and a plain stack of 3x3 convolutions of like sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..inference.inferer import NetworkInferer
from ..losses.cosupervision import CoSupervisionLoss
from ..networks.blocks import initialise_convolutions
from ..networks.registry import create_network
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
    """

    network: nn.Module
    loss: Callable[[Tensor], Tensor]
    image: Tensor
    amp: str
    gflop: float = field(init=False)

    def __post_init__(self) -> None:
        self.network.train()
        self.infer = NetworkInferer(self.amp)
        self.optimizer = torch.optim.Adam(self.network.parameters(), fused=True)
        self.gflop = count_gflop(self)

    def __call__(self) -> None:
        """Take one step."""
        self.optimizer.zero_grad()
        self.loss(self.infer(self.image, self.network)).backward()
        self.optimizer.step()


def count_gflop(work: Callable[[], object]) -> float:
    """Return the operations of convolutions and matrix products in a call, in 10^9."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


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
