"""Mixed precision on a CPU, for which MONAI's trainer has none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor

from ..settings import flag

logger = logging.getLogger(__name__)


def cpu_capabilities() -> Mapping[str, Any]:
    """Return what torch knows about this CPU; torch before 2.13 does not tell."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def has_bfloat16(capabilities: Mapping[str, Any]) -> bool:
    """Return whether a CPU computes in bfloat16; True for unknown architectures and for non-x86."""
    if not str(capabilities.get("architecture", "")).startswith("x86"):
        return True
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class AutocastInferer(Inferer):
    """Runs an inferer under bfloat16 autocast on a CPU; needs no gradient scaler.

    On CUDA MONAI's engines do it with `amp=True`, and their autocast, which is bound to CUDA, is
    left as it is. On other devices there is no mixed precision.

    Args:
        amp: whether mixed precision is wanted. A CPU that would emulate bfloat16, many times slower
            than float32, computes in float32, and the log says so.
        inferer: what brings the input before the network; None: the input as it is.
    """

    def __init__(self, amp: bool | str, inferer: Inferer | None = None) -> None:
        super().__init__()
        self.amp = flag(amp)
        self.inferer = inferer or SimpleInferer()

    @cached_property
    def _computes_in_bfloat16(self) -> bool:
        able = has_bfloat16(cpu_capabilities())
        if not able:
            logger.info("amp: this CPU has no bfloat16 instructions, float32 is used")
        return able

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """Map images (B, C, ...) to logits, bfloat16 under autocast."""
        enabled = self.amp and inputs.device.type == "cpu" and self._computes_in_bfloat16
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            return self.inferer(inputs, network, *args, **kwargs)
