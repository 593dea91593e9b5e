"""Mixed precision on a CPU, for which MONAI's trainer has none."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor

from scripts.settings import flag


class AutocastInferer(Inferer):
    """Runs the network under bfloat16 autocast, which needs no gradient scaler, on a CPU.

    On CUDA MONAI's `SupervisedTrainer(amp=True)` does it, with a scaler; its autocast is bound to CUDA.

    Args:
        amp: whether mixed precision is wanted.
    """

    def __init__(self, amp: bool | str) -> None:
        super().__init__()
        self.amp = flag(amp)
        self.simple = SimpleInferer()

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Maps images (B, C, H, W) to logits, bfloat16 under autocast."""
        device = inputs.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.amp and device == "cpu"):
            return self.simple(inputs, network, *args, **kwargs)
