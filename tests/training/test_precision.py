from __future__ import annotations

import pytest
import torch
from torch import nn

from scripts.training import precision
from scripts.training.precision import AutocastInferer, has_bfloat16


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "amx_bf16": True}, True),
        ({"architecture": "aarch64"}, True),
        ({}, True),
    ],
)
def test_which_cpus_compute_in_bfloat16(capabilities: dict[str, object], expected: bool) -> None:
    assert has_bfloat16(capabilities) is expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="on CUDA MONAI's own autocast is used")
@pytest.mark.parametrize(
    ("amp", "able", "expected"),
    [("true", True, torch.bfloat16), ("true", False, torch.float32), ("false", True, torch.float32)],
)
def test_a_cpu_that_would_emulate_bfloat16_computes_in_float32(
    amp: str, able: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: able)
    assert AutocastInferer(amp)(torch.zeros(1, 1, 4, 4), nn.Conv2d(1, 1, 1)).dtype == expected
