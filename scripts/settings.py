"""Settings that arrive from the command line, where everything may be a text."""

from __future__ import annotations

from typing import Any

import torch

from scripts.errors import UserError


def flag(value: Any) -> bool:
    """Reads a switch: the bundle runner passes `--resume false` on as the text "false", which Python takes for true.

    Raises:
        UserError: if it is neither true nor false.

    >>> flag("false"), flag(True)
    (False, True)
    """
    text = str(value).strip().lower()
    if text not in ("true", "false"):
        raise UserError(f"a switch is {value!r}; accepted: true or false")
    return text == "true"


def optional(value: Any) -> Any:
    """Reads a setting that may be absent: `--cache_dir null` arrives as the text "null".

    >>> optional("null") is None, optional("folder")
    (True, 'folder')
    """
    return None if str(value).strip().lower() in ("null", "none", "") else value


def per_process(batch_size: int, world_size: int) -> int:
    """Returns each process's part of a batch.

    Raises:
        UserError: if the batch cannot be divided, because another batch size would be another training.
    """
    if batch_size % world_size:
        raise UserError(f"batch_size is {batch_size} for {world_size} processes; accepted: a multiple of {world_size}")
    return batch_size // world_size


def default_device() -> torch.device:
    """Returns the first CUDA device, else Apple's, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda:0")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def memory_format(channels_last: bool | str, device: str | torch.device) -> torch.memory_format:
    """Returns how the network's tensors lie in memory; channels last is not used on MPS, where it is untried."""
    wanted = flag(channels_last) and torch.device(device).type != "mps"
    return torch.channels_last if wanted else torch.contiguous_format


def cuda_amp(amp: bool | str, device: str | torch.device) -> bool:
    """Whether MONAI's engines shall use mixed precision: theirs is bound to CUDA."""
    return flag(amp) and torch.device(device).type == "cuda"
