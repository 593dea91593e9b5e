"""Mixed precision on a CPU, for which MONAI's trainer has none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor

from scripts.settings import flag

logger = logging.getLogger(__name__)


def cpu_capabilities() -> Mapping[str, Any]:
    """Returns what torch knows about this CPU; torch before 2.13 does not tell."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def has_bfloat16(capabilities: Mapping[str, Any]) -> bool:
    """Whether a CPU computes in bfloat16; unknown and other architectures than x86 are trusted to."""
    if not str(capabilities.get("architecture", "")).startswith("x86"):
        return True
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class AutocastInferer(Inferer):
    """Runs the network under bfloat16 autocast, which needs no gradient scaler, on a CPU.

    On CUDA MONAI's `SupervisedTrainer(amp=True)` does it, with a scaler; its autocast is bound to CUDA.

    Args:
        amp: whether mixed precision is wanted; on a CPU that would emulate bfloat16, many times slower than float32, it
            is left out and the log says so.
    """

    def __init__(self, amp: bool | str) -> None:
        super().__init__()
        self.amp = flag(amp)
        if self.amp and not torch.cuda.is_available() and not has_bfloat16(cpu_capabilities()):
            self.amp = False
            logger.info("amp: this CPU has no bfloat16 instructions, float32 is used")
        self.simple = SimpleInferer()

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Maps images (B, C, H, W) to logits, bfloat16 under autocast."""
        device = inputs.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.amp and device == "cpu"):
            return self.simple(inputs, network, *args, **kwargs)
