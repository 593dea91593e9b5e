"""What every loss asks of the maps and labels that it is given."""

from __future__ import annotations

from torch import Tensor


def check_maps(logits: Tensor, label: Tensor, heads: int) -> None:
    """Refuse maps other than the main map, with or without its heads, and labels without edge.

    Args:
        logits: (B, 1, H, W) or (B, 1 + heads, H, W).
        label: (B, 2, H, W).
        heads: number of supervised heads.

    Raises:
        ValueError: if channels, batches or sizes are others.
    """
    if logits.shape[1] not in (1, 1 + heads) or label.shape[1] != 2:
        raise ValueError(
            f"logits have {logits.shape[1]} channels and labels {label.shape[1]}; "
            f"expected: 1 or {1 + heads} logits, 2 labels (mask, edge)"
        )
    check_sizes(logits, label)


def check_sizes(logits: Tensor, label: Tensor) -> None:
    """Refuse maps and labels of different batches or sizes.

    Raises:
        ValueError: with both shapes.
    """
    if logits.shape[0] != label.shape[0] or logits.shape[2:] != label.shape[2:]:
        raise ValueError(
            f"logits are {tuple(logits.shape)} and labels {tuple(label.shape)}; expected: equal batches and sizes"
        )
