"""Settings that arrive from the command line, where everything may be a text."""

import math
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from .errors import UserError

CPU_KERNELS = {"cpu"}
"""Kinds of devices that compute with the processor's kernels; tests add their own."""


def flag(value: Any, name: str = "a switch") -> bool:
    """Read a switch, which the bundle runner passes on as text; UserError unless true or false.

    >>> flag("false"), flag(True)
    (False, True)
    """
    text = str(value).strip().lower()
    if text not in ("true", "false"):
        raise UserError(f"{name} is {value!r}; expected: true or false")
    return text == "true"


def optional(value: Any) -> Any:
    """Read a setting that may be absent: `--cache_dir null` arrives as the text "null".

    >>> optional("null") is None, optional("folder")
    (True, 'folder')
    """
    return None if str(value).strip().lower() in ("null", "none", "") else value


def number(name: str, value: Any, expected: str, accept: Callable[[float], bool] = math.isfinite) -> float:
    """Read a number that may arrive as a text, from a command line or from a form of 3D Slicer.

    `accept` tells whether a finite number is within bounds; UserError, with `expected`, if not.

    >>> number("threshold", "0.4", "a probability")
    0.4
    """
    try:
        read = float(value)
    except (TypeError, ValueError):
        read = math.nan
    if not math.isfinite(read) or not accept(read):
        raise UserError(f"{name} is {value!r}; expected: {expected}")
    return read


def decision_threshold(value: Any) -> float:
    """Read the probability from which on a pixel is marked, in (0, 1); see `number`.

    >>> decision_threshold("0.4")
    0.4
    """
    return number("threshold", value, "a probability between 0 and 1", lambda one: 0 < one < 1)


def amount(name: str, value: Any, expected: str = "a number, 0 or more") -> float:
    """Read how much: 0 or more; see `number`.

    >>> amount("learning_rate", "1e-4")
    0.0001
    """
    return number(name, value, expected, lambda one: one >= 0)


def count(name: str, value: Any, expected: str | None = None, least: int = 1) -> int:
    """Read how many, `least` or more; see `number`.

    >>> count("rounds", "3")
    3
    """
    wanted = f"a whole number from {least}" if expected is None else expected
    return int(number(name, value, wanted, lambda one: one >= least and one.is_integer()))


def given_path(name: str, value: Any) -> Path:
    """Read a path that a program gives, which as an empty text would be the current folder.

    Raises:
        UserError: says what was given in its place.
    """
    if not isinstance(value, str | PathLike):
        raise UserError(f"{name} is {'None' if value is None else f'a {type(value).__name__}'}; expected: a path")
    if value == "":
        raise UserError(f"{name} is ''; expected: a path")
    return Path(value)


def per_process(batch_size: int, world_size: int) -> int:
    """Return each process's part of a batch; UserError if it cannot be divided evenly."""
    if batch_size % world_size:
        raise UserError(f"batch_size is {batch_size} for {world_size} processes; expected: a multiple of {world_size}")
    return batch_size // world_size


def is_distributed() -> bool:
    """Whether this process is one of a process group."""
    return dist.is_available() and dist.is_initialized()


def default_device() -> torch.device:
    """Return the first CUDA device, else Apple's, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda:0")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what a result depends on beside the bundle: platform, torch, device, threads."""
    on_gpu = device.type == "cuda"
    return {
        "platform": platform.platform(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if on_gpu else str(device),
        "threads": torch.get_num_threads(),
    }


@cache
def package_versions(names: tuple[str, ...]) -> Mapping[str, str]:
    """Return the versions of those packages that are installed; looked up once in a process."""
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):  # those of an extra
            found[name] = version(name)
    return found


def usable_device(name: str | torch.device | None) -> torch.device:
    """Return the device a user named, or the default; UserError if torch cannot use it here."""
    if not name:
        return default_device()
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
        if device.type == "meta":
            raise RuntimeError("it holds no values")
    except (RuntimeError, AssertionError) as error:  # torch says either
        reason = str(error).strip().splitlines()[0]
        usable = ", ".join(dict.fromkeys(("cpu", str(default_device()))))
        raise UserError(f"device is {str(name)!r} ({reason}); expected: {usable}") from None
    return device


def module(name: str, value: Any) -> nn.Module:
    """Return the network or loss that a config defines; UserError where a word took its place."""
    if isinstance(value, nn.Module):
        return value
    expected = f"a definition with a _target_, or one value of it, as in --{name}#_target_ package.Class"
    raise UserError(f"{name} is {value!r}; expected: {expected}")


def memory_format(channels_last: bool, device: str | torch.device, network: nn.Module) -> torch.memory_format:
    """Return how the network's tensors lie in memory.

    Channels last is not used on MPS, where it is untried, on a CPU for a network in which it would
    corrupt memory, nor for a network for volumes, whose weights have five dimensions where torch
    expects four.
    """
    kind = torch.device(device).type
    volumes = any(isinstance(layer, nn.Conv3d) for layer in module("network_def", network).modules())
    usable = kind != "mps" and not volumes and not (kind in CPU_KERNELS and _overruns_in_channels_last(network))
    return torch.channels_last if channels_last and usable else torch.contiguous_format


def _overruns_in_channels_last(network: nn.Module) -> bool:
    """Whether a layer meets one of two defects of torch (2.13 and 2.15) on x86 CPUs.

    The backward pass writes beyond its memory, if the tensors lie channels last: of a strided 1x1
    convolution whose channels fill no vector register (2 to 7 of them with AVX2, to 15 with
    AVX-512), and in bfloat16 of a dilated one of more than 16 channels that are no multiple of 16.
    Weights get gradients that are not a number, or the process dies later, anywhere.
    """
    return any(
        (layer.kernel_size == (1, 1) and max(layer.stride) > 1 and 1 < layer.in_channels < 16)
        or (max(layer.dilation) > 1 and layer.in_channels > 16 and layer.in_channels % 16 > 0)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    )
