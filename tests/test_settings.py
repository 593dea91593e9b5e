from __future__ import annotations

import pytest
import torch

from scripts.errors import UserError
from scripts.settings import cuda_amp, flag, memory_format, per_process


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("False", False), (True, True), (" TRUE ", True)])
def test_flags_are_read_from_text(value: str | bool, expected: bool) -> None:
    assert flag(value) is expected


@pytest.mark.parametrize("value", ["yes", "1", 1, None, ""])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(UserError, match="accepted: true or false"):
        flag(value)


def test_monais_mixed_precision_is_for_cuda_only() -> None:
    assert cuda_amp("true", "cuda:0")
    assert not cuda_amp("true", "cpu")
    assert not cuda_amp("false", torch.device("cuda"))


def test_memory_format() -> None:
    assert memory_format("true", "cpu") is torch.channels_last
    assert memory_format(False, "cpu") is torch.contiguous_format
    assert memory_format(True, "mps") is torch.contiguous_format


def test_a_batch_is_divided_without_rest() -> None:
    assert per_process(8, 2) == 4
    with pytest.raises(UserError, match="batch_size is 8 for 3 processes; accepted: a multiple of 3"):
        per_process(8, 3)
