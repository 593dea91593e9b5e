"""Classes or targets one by one before metrics that know one map at a time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

Pairs = tuple[list[Tensor], list[Tensor]]


def class_maps(classes: Sequence[int]) -> Callable[[Sequence[Mapping[str, Any]]], Pairs]:
    """Make the `output_transform` of a metric's handler that looks at some classes by number.

    It takes an engine's output, a list of {"pred", "label"} with one map a class (C, ...), apart
    into predictions and labels (1, ...), class after class for each item. A mean over what several
    classes give is the mean of the classes' means.
    """

    def take(output: Sequence[Mapping[str, Any]]) -> Pairs:
        predictions, labels = (
            [item[key][number : number + 1] for item in output for number in classes] for key in ("pred", "label")
        )
        return predictions, labels

    return take


def known_slices(label: Tensor) -> Tensor:
    """Return of which slices of a label (..., Z) the whole truth is known (bool, (Z,)).

    What is unknown is below 0.
    """
    return (label >= 0).flatten(0, -2).all(dim=0)


def known_maps(number: int) -> Callable[[Sequence[Mapping[str, Any]]], Pairs]:
    """Make an `output_transform` as `class_maps` for one map of volumes (C, X, Y, Z).

    Slices of unknown truth are left out, and volumes that have no others.
    """
    one_map = class_maps([number])

    def take(output: Sequence[Mapping[str, Any]]) -> Pairs:
        chosen = [(p, t, known_slices(t)) for p, t in zip(*one_map(output), strict=True)]
        kept = [(p[..., known], t[..., known]) for p, t, known in chosen if known.any()]
        return [p for p, _ in kept], [t for _, t in kept]

    return take
