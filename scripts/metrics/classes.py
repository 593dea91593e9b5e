"""Classes one by one before metrics that know one map at a time."""

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
