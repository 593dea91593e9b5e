"""`python -m scripts benchmark [OUT]`: speed and memory, ours beside what others use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import Device, Overwrite, separated


def benchmark(
    out: Annotated[Path, Argument(help="Folder of benchmark.json and benchmark.md.")] = Path("out/benchmark"),
    sections: Annotated[
        list[str] | None, Option(help="What to measure, default: network,training,segment,memory.")
    ] = None,
    scan: Annotated[Path | None, Option(help="Scan for segment and memory; default: a phantom, 512x512x148.")] = None,
    rounds: Annotated[int, Option(help="How often everything is measured.")] = 5,
    widths: Annotated[list[str] | None, Option(help="Base widths of the networks; default: 16,64.")] = None,
    size: Annotated[int, Option(help="Rows and columns of a slice as the network sees it.")] = 224,
    batch: Annotated[int, Option(help="Slices in a call of the network.")] = 8,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure speed and memory on this machine, beside networks that others use.

    Everything is measured in turns, several times. A run that was stopped resumes with the same
    command, section by section.
    """
    from ..errors import UserError
    from ..research.benchmark.run import SECTIONS, run_benchmark
    from ..research.benchmark.timing import Plan
    from ..settings import count, usable_device

    if scan is not None and not scan.exists():
        raise UserError(f"{scan}: no such file or folder; expected: a scan, or no --scan for a phantom")
    chosen = tuple(count("--widths", word, "whole numbers such as 16,64") for word in separated(widths) or ("16", "64"))
    numbers = {"rounds": rounds, "size": size, "batch": batch}
    counts = {name: count(f"--{name}", value) for name, value in numbers.items()}
    plan = Plan(out, usable_device(device), widths=chosen, scan=scan, **counts)
    print(run_benchmark(plan, separated(sections) or list(SECTIONS), overwrite))
