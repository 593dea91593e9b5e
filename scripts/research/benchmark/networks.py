"""Sections `network` and `training`: forward passes beside others', and training steps."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UserError
from ...files import CACHE
from ...inference.metadata import read_metadata, write_checkpoint
from ...inference.segmenter import Segmenter
from ...inference.shipped import COMPACT, shipped_weights
from ...inference.tta import view_count
from ...networks.registry import create_network
from ...precision import mixed_precision
from ...training.heap import freed_memory_kept
from ..step_speed import count_gflop, training_steps
from .peers import SCAN_SHAPE, Peer, list_peers
from .timing import Plan, Row, in_turns

SETTINGS = [(backend, precision) for backend in ("torch", "openvino") for precision in ("fp32", "bf16")]
"""Backend and precision of our rows; the first is what others are compared with."""
MATRIX, MATRIX_ON_CUDA = 2048, 8192
FORMATS = {torch.bfloat16: "bf16", torch.float16: "fp16"}

Timed = tuple[Row, Callable[[], object] | None]
"""A row and its call; no call where the row says what is "missing"."""


TRAINING_SIZE = 192
"""Rows and columns of a slice in the recipe of the shipped weights."""


def check_plan(plan: Plan) -> None:
    """Raise UserError for a width or a size that our network refuses; nothing is computed."""
    for width in plan.widths:
        with torch.device("meta"), torch.inference_mode():
            _shipped(width).eval()(torch.zeros(1, 1, plan.size, plan.size))


def measure_networks(plan: Plan) -> Iterator[dict[str, Any]]:
    """Time forward passes; yield {"rows"} after every round, one per network and setting."""
    with tempfile.TemporaryDirectory() as folder, _nothing_cached():
        yield from _measured(list(_forward_passes(plan, Path(folder))), plan)


def measure_training(plan: Plan) -> Iterator[dict[str, Any]]:
    """Time training steps, of the network and of a plain stack of convolutions; yield as above."""
    with freed_memory_kept():  # as a training does on a CPU
        yield from _measured(list(_training_steps(plan)), plan)


def _measured(timed: Sequence[Timed], plan: Plan) -> Iterator[dict[str, Any]]:
    rows, calls = zip(*((row, call) for row, call in timed if call), strict=True)
    for _ in in_turns(rows, calls, plan):
        yield {"rows": [row for row, _ in timed]}


def _training_steps(plan: Plan) -> Iterator[Timed]:
    yield from _products(plan.device)
    size, reduced = min(plan.size, TRAINING_SIZE), mixed_precision("auto", plan.device)
    amps = {"fp32": "false"} | ({} if reduced is torch.float32 else {FORMATS[reduced]: "auto"})
    for width, (precision, amp) in product(plan.widths, amps.items()):
        for name, step in training_steps(width, size, plan.batch, plan.device, amp).items():
            row = {"network": f"{name}, width {width}", "backend": "torch", "precision": precision, "gflop": step.gflop}
            yield row | {"input": f"{plan.batch} of {size} x {size}", "unit": "step", "units": 1}, step


@contextmanager
def _nothing_cached() -> Iterator[None]:
    """Keep compiled random networks out of the user's cache."""
    before = os.environ.get(CACHE)
    os.environ[CACHE] = "off"
    try:
        yield
    finally:
        os.environ.pop(CACHE)
        os.environ |= {} if before is None else {CACHE: before}


def _forward_passes(plan: Plan, folder: Path) -> Iterator[Timed]:
    yield from _products(plan.device)
    for width in plan.widths:
        yield from _ours(plan, width, folder)
    for peer in list_peers(plan):
        yield _peer(peer, plan.device)


def _products(device: torch.device) -> Iterator[Timed]:
    """Multiply matrices, which stands for what the device can do at most."""
    size, reduced = MATRIX_ON_CUDA if device.type == "cuda" else MATRIX, mixed_precision("auto", device)
    for dtype in dict.fromkeys((torch.float32, reduced)):
        left, right = torch.randn(2, size, size, device=device).to(dtype)
        row = {"network": f"product of matrices, {size} x {size}", "backend": "torch", "unit": "product"}
        figures = {"precision": FORMATS.get(dtype, "fp32"), "input": "-", "units": 1, "gflop": 2 * size**3 / 1e9}
        yield row | figures, partial(torch.matmul, left, right)


def _shipped(width: int) -> nn.Module:
    """Return the shipped network at a width, as its constructor initialises it."""
    spec = read_metadata(shipped_weights(COMPACT))["network"]
    return create_network(spec["name"], **spec["arguments"] | {"base_width": width, "deep_supervision": False})


def _ours(plan: Plan, width: int, folder: Path) -> Iterator[Timed]:
    """Apply the shipped network at a width, with random weights, as `segment` does."""
    metadata, weights = read_metadata(shipped_weights(COMPACT)), folder / f"width_{width}.pt"
    network, views = _shipped(width), view_count(metadata["operating_point"]["test_time_flips"])
    settings = {"preprocessing": metadata["preprocessing"] | {"size": plan.size}, "data": {"synthetic": True}}
    write_checkpoint(weights, network.state_dict(), network=network.spec, figures={}, **settings)
    images = torch.randn(1, 1, plan.size, plan.size, plan.batch)
    shape = (plan.batch, 1, plan.size, plan.size)
    facts = _facts(f"ours (ResUNet), width {width}", network, shape, views * SCAN_SHAPE[2])
    for backend, precision in SETTINGS:
        row = facts | {"backend": backend, "precision": precision}
        try:
            predictor = Segmenter(weights, str(plan.device), backend=backend, precision=precision).predictor
        except UserError as error:
            yield row | {"missing": str(error)}, None
        else:
            yield row, partial(predictor, images, "random images")


def _peer(peer: Peer, device: torch.device) -> Timed:
    """Apply a network as its package does: float32, on CUDA nnU-Net's in float16."""
    try:
        network = peer.build().eval()
    except ModuleNotFoundError:
        return {"network": peer.name, "missing": f"not installed: pip install --no-deps {peer.package}"}, None
    facts = _facts(peer.name, network, peer.shape, peer.per_scan)
    network, images = network.to(device), torch.randn(peer.shape, device=device)
    half = device.type == "cuda" and "PlainConvUNet" in peer.name

    def call() -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, torch.float16, enabled=half):
            result: Tensor = network(images)
            return result

    return facts | {"backend": "torch", "precision": "fp16" if half else "fp32"}, call


def _facts(name: str, network: nn.Module, shape: tuple[int, ...], per_scan: int) -> Row:
    """Return what a row says of a network: size, input, and the operations on one image."""
    on_paper, image = copy.deepcopy(network).eval().to("meta"), torch.zeros(1, *shape[1:], device="meta")
    with torch.inference_mode():
        gflop = count_gflop(lambda: on_paper(image))
    return {
        "network": name,
        "input": f"{shape[0]} of {' x '.join(map(str, shape[2:]))}",
        "unit": "slice" if len(shape) == 4 else "patch",
        "units": shape[0],
        "units_per_scan": per_scan,
        "parameters": sum(one.numel() for one in network.parameters()),
        "gflop": gflop,
    }
