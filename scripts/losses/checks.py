"""What every loss asks of the maps and labels that it is given, and a training of its loss."""

from typing import Any

from torch import Tensor, nn

from ..errors import SettingError, UserError
from ..settings import module

LEAVES_OUT_UNKNOWN = "leaves_out_unknown"
"""Attribute, True, of a loss in which pixels whose mask is below 0 count nothing."""


def training_loss(loss: Any, more_labels: bool) -> nn.Module:
    """Return the loss that a config defines.

    Args:
        loss: see `scripts.settings.module`.
        more_labels: whether labels have pixels that are unknown.

    Raises:
        UserError: for what is no loss, or one that would take unknown pixels for a target.
    """
    defined = module("loss", loss)
    if more_labels:
        require_unknown_left_out(defined, "more_labels is true")
    return defined


def require_unknown_left_out(loss: nn.Module, because: str) -> None:
    """Raise UserError, which says why it matters, for a loss that looks at unknown pixels."""
    if not getattr(loss, LEAVES_OUT_UNKNOWN, False):
        raise UserError(
            f"{because} and the loss {type(loss).__name__}; expected: CoSupervisionLoss or another one that leaves out "
            "pixels without a label"
        )


def check_maps(logits: Tensor, label: Tensor, heads: int) -> None:
    """Raise ValueError for other than 1 or 1 + heads maps and labels (B, 2, H, W) of their size."""
    if logits.shape[1] not in (1, 1 + heads) or label.shape[1] != 2:
        raise SettingError(
            f"logits have {logits.shape[1]} channels and labels {label.shape[1]}; "
            f"expected: 1 or {1 + heads} logits, 2 labels (mask, edge)"
        )
    check_sizes(logits, label)


def check_sizes(logits: Tensor, label: Tensor) -> None:
    """Raise ValueError, with both shapes, for maps and labels of different batches or sizes."""
    if logits.shape[0] != label.shape[0] or logits.shape[2:] != label.shape[2:]:
        raise ValueError(
            f"logits are {tuple(logits.shape)} and labels {tuple(label.shape)}; expected: equal batches and sizes"
        )
