"""Load and save weights; refuse weights, maps and metadata with numbers that are not finite.

A network with one weight that is NaN answers NaN, and NaN compared with a threshold is no
infection. Without these checks a damaged checkpoint ends in a finished report of a healthy lung.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import UserError

VARIANCE = "running_var"  # how torch names the running variance of a normalisation; its square root is taken
_REAL = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
_REAL |= {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}


def load_weights(path: str | Path, expected: str = "weights that training wrote") -> dict[str, Tensor]:
    """Load a state dict onto the CPU; nothing in the file is evaluated.

    Raises:
        UserError: if the file is no plain state dict, or `check_weights` refuses a number in it.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged, or it wants to run code: torch has many exceptions for that
        raise UserError(f"{path}: no plain state dict ({type(error).__name__}); expected: {expected}") from None
    if not isinstance(weights, Mapping) or not all(_is_plain(key, value) for key, value in weights.items()):
        raise UserError(f"{path}: no plain state dict ({type(weights).__name__}); expected: {expected}")
    check_weights(weights, path)
    return dict(weights)


def _is_plain(key: Any, value: Any) -> bool:
    """Whether an entry is a dense tensor of real numbers with a name: others cannot be checked."""
    if not isinstance(key, str) or not isinstance(value, Tensor) or value.dtype not in _REAL:
        return False
    return value.layout is torch.strided and not value.is_nested and not value.is_meta


def save_tensors(content: Any, path: Path) -> None:
    """Write tensors as `torch.save` does; raise OSError for a full disk, which torch hides."""
    with path.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def check_weights(weights: Mapping[str, Tensor], name: str | Path) -> None:
    """Raise UserError for a state dict with NaN, infinity or a negative running variance."""
    wrong = {key: reason for key, value in weights.items() if (reason := _fault(key, value)) is not None}
    if wrong:
        key, reason = next(iter(wrong.items()))
        others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(f"{name}: {key}{others} of the weights holds {reason}; expected: finite weights")


def _fault(key: str, value: Tensor) -> str | None:
    if not bool(torch.isfinite(value).all().cpu()):
        return "NaN or infinity"
    if key.endswith(VARIANCE) and bool((value < 0).any().cpu()):
        return "a negative variance"
    return None


def check_maps(maps: Tensor, name: str | Path) -> None:
    """Raise UserError for maps of a network, on any device, with a number that is not finite."""
    if not bool(torch.isfinite(maps).all().cpu()):
        raise UserError(
            f"{name}: the network's output is not finite (NaN or infinity); expected: weights and a precision that "
            "give numbers (another checkpoint, or --amp false)"
        )


def check_numbers(content: Any, name: str | Path) -> None:
    """Raise UserError for NaN and infinity in what was read from JSON, named by its keys."""
    try:
        wrong = next(((keys, value) for keys, value in _numbers(content) if not math.isfinite(value)), None)
    except RecursionError:
        raise UserError(f"{name}: nested too deep; expected: what this software writes") from None
    if wrong:
        raise UserError(f"{name}: {'.'.join(wrong[0])} is {wrong[1]}; expected: a finite number")


def _numbers(content: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _numbers(value, (*keys, str(key)))
    elif isinstance(content, Sequence) and not isinstance(content, str):
        for index, value in enumerate(content):
            yield from _numbers(value, (*keys, str(index)))
    elif isinstance(content, float):
        yield keys, content
