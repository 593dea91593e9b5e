"""Test-time augmentation (TTA) by flips: the mean of a network's logits over mirrored inputs.

How far the views agree says how sure a border is (after Wang et al., "Aleatoric uncertainty
estimation with test-time augmentation", Neurocomputing 2019, arXiv 1807.07356).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError

FLIPPED_AXES: dict[int, tuple[tuple[int, ...], ...]] = {1: (), 2: ((2,),), 4: ((2,), (3,), (2, 3))}
"""By number of views, the in-plane axes of (B, C, X, Y) or (B, C, X, Y, Z) that are flipped beside
the image as it is; axis 2 runs from right to left."""

SETTLED_LOGITS = 3.0
"""So far below the decision threshold a whole view is believed alone: for a mark, the others would
have to lie on average 1 above it (of four views; of two 3). In 19 scans no voxel changed with 3 or
2, and 9 did with 1 (docs/measure_views.py)."""


def settled_below(threshold: float, margin: float = SETTLED_LOGITS) -> float:
    """Return the logit below which the first view settles that nothing is marked.

    Args:
        threshold: decision threshold, a probability in (0, 1).
        margin: how far below it, in logits.

    >>> round(settled_below(0.5), 3)
    -3.0
    """
    return _logit(threshold) - margin


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def view_count(value: Any, name: str = "test_time_flips") -> int:
    """Read the number of views: 1, 2 or 4; true is 4 and false 1, as metadata of models say.

    Raises:
        UserError: if it is something else.

    >>> view_count(True), view_count("false"), view_count("2")
    (4, 1, 2)
    """
    text = str(value).strip().lower()
    known = {"true": 4, "false": 1, **{str(views): views for views in FLIPPED_AXES}}
    if text not in known:
        raise UserError(f"{name} is {value!r}; expected: true or false, or 1, 2 or 4 views")
    return known[text]


def chosen_flips(flips: bool | None, views: int | None) -> bool | int | None:
    """Return what a command line says of flips: `--flips` or `--views`; None: nothing.

    Raises:
        UserError: if the two contradict each other or the number of views is unknown.
    """
    if views is None:
        return flips
    if flips is not None and flips != (views > 1):
        raise UserError(f"--flips {str(flips).lower()} and --views {views}; expected: one of them")
    return view_count(views, "views")


def stated_flips(views: int) -> bool | int:
    """Return the number of views as metadata and reports state it; 4 and 1 are true and false."""
    return {4: True, 1: False}.get(views, views)


class ViewAgreement:
    """Count the pixels that every view, and that any view, marks while a network works.

    Args:
        *thresholds: probabilities from which on a pixel is marked.
    """

    def __init__(self, *thresholds: float) -> None:
        self._logits = [_logit(threshold) for threshold in thresholds]
        self._rows: list[Tensor] = []

    def add(self, lowest: Tensor, highest: Tensor) -> None:
        """Add the lowest and highest logits over the views of some images, both (B, ...)."""
        maps = torch.stack([lowest, highest], dim=1).flatten(2)
        counts = [(maps >= logit).sum(dim=2) for logit in self._logits]
        self._rows.append(torch.cat(counts, dim=1).cpu())

    def take(self) -> Tensor:
        """Return the counts since the last call, (N, 2) for one threshold, then 2 for the next.

        The first are the pixels that every view marks, the second those that any view marks.
        """
        rows = torch.cat(self._rows) if self._rows else torch.zeros(0, 2 * len(self._logits), dtype=torch.int64)
        self._rows = []
        return rows


def agreement_percent(rows: Tensor) -> float | None:
    """Return which percentage every view marks of what any marks, of counts (N, 2).

    None where nothing is marked.
    """
    every, some = rows.sum(dim=0).cpu().tolist()
    return 100 * every / some if some else None


def average_over_flips(
    network: Callable[..., Tensor],
    images: Tensor,
    views: int,
    *args: Any,
    agreement: ViewAgreement | None = None,
    settled: float | None = None,
    **kwargs: Any,
) -> Tensor:
    """Average the logits of the image and of its flips in plane, each flipped back.

    Args:
        network: from images to logits of the same size.
        images: (B, C, H, W) or (B, C, H, W, D).
        views: 1, the image as it is; 2, with its mirror image; 4, with all three flips.
        *args: what else the network takes.
        agreement: receives how far the views agree.
        settled: the logit below which the first view, if all of it lies there, is believed alone;
            None: every view is applied.
        **kwargs: what else the network takes.

    Returns:
        Logits, (B, K, H, W) or (B, K, H, W, D).
    """
    total = lowest = highest = network(images, *args, **kwargs)
    if settled is not None and views > 1 and bool((total < settled).all()):
        views = 1
    for axes in FLIPPED_AXES[views]:
        logits = torch.flip(network(torch.flip(images, axes), *args, **kwargs), axes)
        total = total + logits
        if agreement is not None:
            lowest, highest = torch.minimum(lowest, logits), torch.maximum(highest, logits)
    if agreement is not None:
        agreement.add(lowest, highest)
    return total / views if views > 1 else total
