from __future__ import annotations

import pytest
import torch

from scripts import settings
from scripts.errors import UserError
from scripts.networks.registry import create_network
from scripts.settings import flag, memory_format, number, per_process


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("False", False), (True, True), (" TRUE ", True)])
def test_flags_are_read_from_text(value: str | bool, expected: bool) -> None:
    assert flag(value) is expected


@pytest.mark.parametrize("value", ["yes", "1", 1, None, ""])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(UserError, match="expected: true or false"):
        flag(value)


def test_memory_format() -> None:
    network = create_network("resunet", base_width=16)
    assert memory_format(True, "cpu", network) is torch.channels_last
    assert memory_format(False, "cpu", network) is torch.contiguous_format
    assert memory_format(True, "mps", network) is torch.contiguous_format


@pytest.mark.parametrize("width", [4, 8, 12])
def test_channels_last_is_left_where_torch_would_write_beyond_its_memory(width: int) -> None:
    narrow = create_network("resunet", base_width=width)  # its strided 1x1 convolutions begin at this width
    assert memory_format(True, "cpu", narrow) is torch.contiguous_format
    assert memory_format(True, "cuda:0", narrow) is torch.channels_last


@pytest.mark.parametrize(("channels", "overruns"), [(8, False), (16, False), (20, True), (24, True), (32, False)])
def test_channels_last_is_left_for_dilated_convolutions_of_odd_numbers_of_channels(
    channels: int, overruns: bool
) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(channels, 8, 3, padding=2, dilation=2))
    expected = torch.contiguous_format if overruns else torch.channels_last
    assert memory_format(True, "cpu", network) is expected
    assert memory_format(True, "cpu", torch.nn.Conv2d(channels, 8, 3, padding=1)) is torch.channels_last


@pytest.mark.parametrize("value", ["", "half", None, "nan", 1.0, "-1", float("inf")])
def test_a_number_that_makes_no_sense_is_refused_by_its_name(value: object) -> None:
    with pytest.raises(UserError, match="threshold is"):
        number("threshold", value, "between 0 and 1", lambda read: 0 < read < 1)


@pytest.mark.parametrize("value", ["unet", 3, None, torch.nn.ReLU])
def test_what_is_no_network_is_refused_by_its_id(value: object) -> None:
    with pytest.raises(UserError, match=r"^network_def is .*; expected: a definition"):
        memory_format(True, "cpu", value)  # type: ignore[arg-type]  # what the command line may give


def test_a_batch_is_divided_without_rest() -> None:
    assert per_process(8, 2) == 4
    with pytest.raises(UserError, match="batch_size is 8 for 3 processes"):
        per_process(8, 3)


def test_channels_last_is_not_for_volumes() -> None:
    network = create_network("fv_paspp_unet3d", base_width=2)
    assert memory_format(True, "cuda:0", network) is torch.contiguous_format
    network.to(memory_format=memory_format(True, "cpu", network))


@pytest.mark.parametrize(("default", "usable"), [("cpu", "cpu"), ("mps", "cpu, mps")])
def test_a_device_that_cannot_be_had_names_those_that_can(
    default: str, usable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "default_device", lambda: torch.device(default))
    with pytest.raises(UserError, match=f"device is 'abacus' .*; expected: {usable}$"):
        settings.usable_device("abacus")
