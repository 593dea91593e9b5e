"""Test-time augmentation (TTA) by flips: the mean of a network's logits over mirrored inputs.

How far the views agree says how sure a border is (after Wang et al., "Aleatoric uncertainty
estimation with test-time augmentation", Neurocomputing 2019, arXiv 1807.07356).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .ood import FeatureMeans

FLIPPED_AXES: dict[int, tuple[tuple[int, ...], ...]] = {1: (), 2: ((2,),), 4: ((2,), (3,), (2, 3))}
"""By number of views, the in-plane axes of (B, C, X, Y) or (B, C, X, Y, Z) that are flipped beside
the image as it is; axis 2 runs from right to left."""

SETTLED_LOGITS = 3.0
"""How far below the decision threshold the first view of an image is believed alone, see
`Settling`; docs/measure_views.py measures what that changes."""


@dataclass(frozen=True)
class Settling:
    """Says when the views that an image was seen in settle that nothing is marked.

    Attributes:
        threshold: decision threshold, a probability in (0, 1).
        margin: how many logits below it all of the first view has to lie.
    """

    threshold: float
    margin: float = SETTLED_LOGITS

    def below(self, seen: int, views: int) -> float:
        """Return the logit below which the mean of `seen` views settles the mean of `views`.

        What the others still change of the mean varies by the square root of (views - seen) / seen,
        if views differ independently. The margin shrinks with it, so that it is as sure after each.

        >>> [round(Settling(0.5).below(seen, 4), 3) for seen in (1, 2, 3)]
        [-3.0, -1.732, -1.0]
        """
        return _logit(self.threshold) - self.margin * math.sqrt((views - seen) / (seen * (views - 1)))

    def unsettled(self, mean: Tensor, seen: int, views: int) -> Tensor:
        """Return of which images (B, ...) the mean of the views seen lies elsewhere, (B,) bool."""
        return ~(mean < self.below(seen, views)).flatten(1).all(dim=1)


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
    network: Callable[..., Any],
    images: Tensor,
    views: int,
    *args: Any,
    agreement: ViewAgreement | None = None,
    features: FeatureMeans | None = None,
    settling: Settling | None = None,
    maps: slice | None = None,
    **kwargs: Any,
) -> Tensor:
    """Average the logits of the image and of its flips in plane, each flipped back.

    Args:
        network: from images to logits of the same size, or to these and channel means of layers.
        images: (B, C, H, W) or (B, C, H, W, D).
        views: 1, the image as it is; 2, with its mirror image; 4, with all three flips.
        *args: what else the network takes.
        agreement: receives how far several views agree.
        features: receives the channel means of the images as they are, of no flip.
        settling: says when an image is seen in no further view; the mean is then that of the views
            seen; None: every view is applied.
        maps: which of the network's maps are averaged, compared and settled; None: all.
        **kwargs: what else the network takes.

    Returns:
        Logits of these maps, (B, K, H, W) or (B, K, H, W, D).
    """

    def see(view: Tensor) -> tuple[Tensor, ...]:
        found = network(view, *args, **kwargs)
        logits, *means = found if isinstance(found, tuple) else (found,)
        return logits if maps is None else logits[:, maps], *means

    first, *means = see(images)
    if features is not None:
        features.add(*means)
    if views == 1:
        return first
    total = lowest = highest = first
    counts = torch.ones(len(images), device=first.device, dtype=first.dtype)
    places = None if settling is None else torch.arange(len(images), device=first.device)
    for seen, axes in enumerate(FLIPPED_AXES[views], start=1):
        if places is not None and settling is not None:  # both or none
            places = places[settling.unsettled(total[places] / seen, seen, views)]
        remaining = _at(images, places)
        if not len(remaining):
            break
        logits = torch.flip(see(torch.flip(remaining, axes))[0], axes)
        total = _replace(total, places, _at(total, places) + logits)
        counts = _replace(counts, places, _at(counts, places) + 1)
        if agreement is not None:
            lowest = _replace(lowest, places, torch.minimum(_at(lowest, places), logits))
            highest = _replace(highest, places, torch.maximum(_at(highest, places), logits))
    if agreement is not None:
        agreement.add(lowest, highest)
    return total / counts.reshape(-1, *[1] * (total.dim() - 1))


def _at(values: Tensor, places: Tensor | None) -> Tensor:
    """Return the values (B, ...) at some places, None: at all."""
    return values if places is None else values[places]


def _replace(values: Tensor, places: Tensor | None, by: Tensor) -> Tensor:
    """Return the values (B, ...) with those at some places, None: at all, replaced."""
    return by if places is None else values.index_copy(0, places.to(values.device), by)
