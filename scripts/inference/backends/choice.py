"""Choose what applies a network: backend and precision, by wish, hardware and installed packages.

`auto` is the fastest: bfloat16 where the processor computes in it, OpenVINO on a CPU where it is
installed. `docs/measure_backends.py` measures how much Dice of unseen cases differs.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from ...errors import UserError
from ...precision import mixed_precision
from ...settings import optional

logger = logging.getLogger(__name__)

BACKENDS, PRECISIONS = ("auto", "torch", "openvino"), ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Backend:
    """What applies a network.

    Attributes:
        name: "torch" or "openvino".
        precision: "fp32" or "bf16".
    """

    name: str = "torch"
    precision: str = "fp32"

    def describe(self) -> dict[str, str]:
        """Return name, precision and version, all that masks depend on: of torch its build too."""
        return {**asdict(self), "version": torch.__version__ if self.name == "torch" else version(self.name)}


TORCH = Backend()
"""What trained the network, and what others are compared with."""

BATCH_SIZE = 8
"""Slices or patches in a batch, as in configs/inference.yaml; torch's bits may depend on it."""

OPENVINO_BATCH = {"fp32": 1, "bf16": 4}
"""Images in a request of OpenVINO, by precision. Shapes are static, which halves the time, so that
what is missing is padded. In bfloat16 an image takes longer alone than as one of four; in float32
it does not. The network's bits do not depend on it."""


def choose_backend(
    backend: Any = "auto", precision: Any = "auto", device: str | torch.device = "cpu", amp: Any = None
) -> Backend:
    """Choose what applies a network.

    Args:
        backend: "auto", "torch" or "openvino".
        precision: "auto", "fp32" or "bf16".
        device: where tensors lie.
        amp: what "auto" means for the precision, as trainings say it, see `mixed_precision`; None
            or "null": the fastest.

    Raises:
        UserError: if what was asked for by name is unknown or cannot be had here.
    """
    name, wanted = str(backend).lower(), str(precision).lower()
    for setting, value, known in (("backend", name, BACKENDS), ("precision", wanted, PRECISIONS)):
        if value not in known:
            raise UserError(f"{setting} is {value!r}; expected: {', '.join(known)}")
    place, able = torch.device(device).type, mixed_precision("auto", device) is torch.bfloat16
    if name == "openvino":
        _require_openvino(place)
    elif name == "auto":
        name = "openvino" if place == "cpu" and openvino_installed() else "torch"
    if wanted == "bf16" and not able:
        wants = "which this processor is not known to have (AMX-BF16 or AVX512-BF16)"
        found = wants if place == "cpu" else f"which {device} lacks"
        raise UserError(f"precision is bf16, {found}; expected: fp32 or auto")
    if wanted == "auto":
        mixed = "auto" if optional(amp) is None else amp
        wanted = "bf16" if mixed_precision(mixed, device) is torch.bfloat16 else "fp32"
    chosen = Backend(name, wanted)
    logger.debug(f"network: {chosen.describe()}")
    return chosen


def _require_openvino(place: str) -> None:
    if place != "cpu":
        raise UserError(f"backend is openvino on device {place}; expected: --device cpu, or --backend torch")
    if not openvino_installed():
        raise UserError("backend is openvino, which is not installed; expected: pip install openvino, or another")


def openvino_installed() -> bool:
    """Return whether OpenVINO is installed, without importing it."""
    try:
        return bool(version("openvino"))
    except PackageNotFoundError:
        return False
