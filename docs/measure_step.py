"""Times one training step by memory layout and precision: the table in docs/experiments.md.

Run from the bundle root: python docs/measure_step.py [SIZE]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.losses.cosupervision import CoSupervisionLoss
from scripts.networks.registry import create_network


def seconds_a_step(name: str, size: int, layout: torch.memory_format, bfloat16: bool, batch: int = 8) -> float:
    """Returns the best of three steps (forward, loss, backward, Adam) in seconds."""
    network = create_network(name, base_width=16).to(memory_format=layout).train()
    loss = CoSupervisionLoss(getattr(network, "edge_heads", 0), getattr(network, "mask_heads", 0))
    optimizer = torch.optim.Adam(network.parameters())
    image, label = torch.randn(batch, 1, size, size), (torch.rand(batch, 2, size, size) > 0.9).float()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = network(image)
        optimizer.zero_grad()
        loss(logits, label).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    for name in ("resunet", "unet"):
        for bfloat16 in (False, True):
            for layout in (torch.contiguous_format, torch.channels_last):
                print(name, layout, "bfloat16" if bfloat16 else "float32", end=" ", flush=True)
                print(f"{seconds_a_step(name, size, layout, bfloat16):.2f} s")
