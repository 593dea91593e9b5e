from __future__ import annotations

import pytest
import torch

from scripts import precision
from scripts.errors import UserError
from scripts.precision import has_bfloat16, mixed_precision, precision_name, scales_gradients

FLOAT32, FLOAT16, BFLOAT16 = torch.float32, torch.float16, torch.bfloat16


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "amx_bf16": True}, True),
        ({"architecture": "aarch64"}, None),
        ({}, None),
    ],
)
def test_which_cpus_have_bfloat16(capabilities: dict[str, object], expected: bool | None) -> None:
    assert has_bfloat16(capabilities) is expected


@pytest.mark.parametrize(
    ("able", "auto", "wanted"), [(True, BFLOAT16, BFLOAT16), (False, FLOAT32, FLOAT32), (None, FLOAT32, BFLOAT16)]
)
def test_a_cpu(able: bool | None, auto: torch.dtype, wanted: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: able)
    found = [mixed_precision(amp, "cpu") for amp in ("auto", "true", True, "False")]
    assert found == [auto, wanted, wanted, FLOAT32]
    assert not scales_gradients("true", "cpu")


@pytest.mark.parametrize(("able", "expected"), [(True, BFLOAT16), (False, FLOAT16)])
def test_cuda(able: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_cuda_has_bfloat16", lambda _: able)
    assert [mixed_precision(amp, "cuda:0") for amp in ("auto", True, False)] == [expected, expected, FLOAT32]
    assert scales_gradients("auto", "cuda:0") is not able
    assert precision_name("auto", torch.device("cuda")) == str(expected).removeprefix("torch.")


def test_other_devices_and_settings() -> None:
    assert mixed_precision("true", "mps") is FLOAT32
    with pytest.raises(UserError, match="amp is 1; expected: auto, true, false"):
        mixed_precision(1, "cpu")  # type: ignore[arg-type]
