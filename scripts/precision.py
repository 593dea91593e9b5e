"""Choose the number format that a network is computed in, by what the hardware is fast at."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .errors import UserError

logger = logging.getLogger(__name__)

AMP = ("auto", "true", "false")
"""Values of the setting `amp`: mixed precision where it is known to be faster, wherever it is not
emulated, or never."""


def mixed_precision(amp: bool | str, device: str | torch.device) -> torch.dtype:
    """Return the type that autocast computes in; float32 stands for no autocast.

    CUDA computes in bfloat16 from compute capability 8.0 on, in float16 before. A CPU computes in
    bfloat16 where it has instructions for it: one that emulates it is many times slower than in
    float32. "true" trusts a CPU that torch knows nothing about, "auto" does not. On MPS mixed
    precision is untried.

    Raises:
        UserError: if `amp` is none of `AMP`.
    """
    wanted = str(amp).strip().lower()
    if wanted not in AMP:
        raise UserError(f"amp is {amp!r}; expected: {', '.join(AMP)}")
    place = torch.device(device)
    if wanted == "false" or place.type not in ("cpu", "cuda"):
        return torch.float32
    if place.type == "cuda":
        return torch.bfloat16 if _cuda_has_bfloat16(place) else torch.float16
    able = has_bfloat16(_capabilities())
    if able is False and wanted == "true":
        _log_emulation()
    return torch.bfloat16 if able or (able is None and wanted == "true") else torch.float32


def precision_name(amp: bool | str, device: str | torch.device) -> str:
    """Return the name of `mixed_precision`, such as "bfloat16", and log it."""
    name = str(mixed_precision(amp, device)).removeprefix("torch.")
    logger.info(f"precision: {name} on {device} (amp: {amp})")
    return name


def scales_gradients(amp: bool | str, device: str | torch.device) -> bool:
    """Whether MONAI's engines shall turn mixed precision on.

    Theirs scales the gradients, which float16 alone needs; `NetworkInferer` computes in bfloat16.
    """
    return mixed_precision(amp, device) is torch.float16


class SmallVolumesInFloat32(TorchFunctionMode):
    """Within this context autocast leaves convolutions of volumes smaller than their kernel alone.

    torch (2.13 and 2.15) computes the gradients of such a convolution's weights from memory that
    nobody wrote, on x86 CPUs in bfloat16: a kernel of three voxels on a map of two ends in any
    number or none.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call `func`, in float32 if it is such a convolution."""
        if func is torch.conv3d and len(args) > 1 and _smaller_than_kernel(*args[:2]):
            args = tuple(value.float() if isinstance(value, Tensor) else value for value in args)
            with torch.autocast("cpu", enabled=False):
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _smaller_than_kernel(volumes: Tensor, weight: Tensor) -> bool:
    return any(size < kernel for size, kernel in zip(volumes.shape[2:], weight.shape[2:], strict=True))


def has_bfloat16(capabilities: Mapping[str, Any]) -> bool | None:
    """Return whether a CPU has bfloat16 instructions; None for one that is not x86 or unknown.

    Args:
        capabilities: what `torch.cpu.get_capabilities` says; torch before 2.13 says nothing.
    """
    if not str(capabilities.get("architecture", "")).startswith("x86"):
        return None
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@cache
def _capabilities() -> Mapping[str, Any]:
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


@cache
def _cuda_has_bfloat16(device: torch.device) -> bool:
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


@cache
def _log_emulation() -> None:
    logger.info("amp: this CPU has no bfloat16 instructions, float32 is used")
