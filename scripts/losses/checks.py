"""What every loss asks of the maps and labels that it is given."""

from torch import Tensor


def check_maps(logits: Tensor, label: Tensor, heads: int) -> None:
    """Raise ValueError for other than 1 or 1 + heads maps and labels (B, 2, H, W) of their size."""
    if logits.shape[1] not in (1, 1 + heads) or label.shape[1] != 2:
        raise ValueError(
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
