"""Time a training step and a forward pass by memory layout and precision (docs/results.md).

Run from the bundle root:

    python docs/measure_step.py [--size 256] [--width 16] [--batch 8] [--device cuda]

Synthetic input. A step is forward, loss, backward and Adam. Reduced precision is what autocast
takes on the device, as the bundle's `amp` does: bfloat16 on a CPU, float16 on CUDA.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import fire
import torch
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.losses.cosupervision import CoSupervisionLoss
from scripts.networks.registry import create_network
from scripts.settings import describe_machine, usable_device


def measure(network: torch.nn.Module, image: torch.Tensor, reduced: bool, repeats: int) -> str:
    """Return the time of a training step and of a forward pass per slice; on CUDA peak memory."""
    device = image.device
    loss = CoSupervisionLoss(getattr(network, "edge_heads", 0), getattr(network, "mask_heads", 0))
    optimizer = torch.optim.Adam(network.parameters())
    label = (torch.rand(image.shape[0], 2, *image.shape[2:], device=device) > 0.9).float()

    def forward() -> torch.Tensor:
        with torch.autocast(device.type, enabled=reduced):
            return network(image)

    def step() -> None:
        logits = forward()
        optimizer.zero_grad()
        loss(logits, label).backward()
        optimizer.step()

    def seconds(work: Callable[[], object]) -> float:
        timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())  # else on one
        return timer.timeit(repeats).mean

    network.train()
    words = f"{seconds(step):.3g} s a training step"
    network.eval()
    with torch.inference_mode():
        words += f", {seconds(forward) / len(image) * 1000:.3g} ms a slice forward"
        with FlopCounterMode(display=False) as counter:
            forward()
        words += f" ({counter.get_total_flops() / len(image) / 1e9:.3g} GFLOP)"
    if device.type == "cuda":
        words += f", {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"
    return words


def main(size: int = 256, width: int = 16, batch: int = 8, device: str = "cpu", repeats: int = 5) -> None:
    """Prints the table.

    Args:
        size: side of the square slices.
        width: base width of the networks.
        batch: slices of a step and of a forward pass.
        device: where the networks work.
        repeats: calls that a figure is the mean of, after one that warms up.
    """
    place = usable_device(device)
    print("{device}, {threads} threads, torch {torch}, {platform}".format(**describe_machine(place)))
    print(f"{batch} slices of {size} x {size}, width {width}, mean of {repeats}")
    image = torch.randn(batch, 1, size, size, device=place)
    for name in ("resunet", "unet"):
        for reduced in (False, True):
            precision = torch.get_autocast_dtype(place.type) if reduced else torch.float32
            for layout in (torch.contiguous_format, torch.channels_last):
                if place.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(place)
                network = create_network(name, base_width=width).to(place, memory_format=layout)
                print(f"{name}, {layout}, {precision}: {measure(network, image, reduced, repeats)}", flush=True)


if __name__ == "__main__":
    fire.Fire(main)
