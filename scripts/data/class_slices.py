"""Slices with an infection map and its classes, to train the multi-class network."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from ..transforms.items import IMAGE, LABEL, PRIOR
from ..transforms.labels import class_numbers
from .slices import SliceDataset, transformed
from .stacks import LEVELS, Grid, load_stacks


class ClassSliceDataset(SliceDataset):
    """`SliceDataset` whose slices have a prior, and classes for a label.

    A slice {"image" in HU, "prior" in [0, 1], "label" with the classes 0, 1, 2}, each (1, H, W),
    goes through the transform. Sampling looks at the infection mask. Images are read once more for
    the classes and, unless the prior is the infection mask, for the prior; in memory and in the
    cache they are kept as often.

    Arguments are those of `SliceDataset`, with "classes" and "prior" in `data` beside "label", and
    "prior_codes", "prior_scale" as for labels.

    Raises:
        UserError: as `SliceDataset`, and for a multi-class label with unknown codes.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        grid: Grid,
        *,
        cache_dir: str | None = None,
        progress: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(data, grid, cache_dir=cache_dir, progress=progress, **settings)

        def stacks(cases: list[dict[str, Any]]) -> list[NDArray[Any]]:
            return [label for _, label in load_stacks(cases, grid, cache_dir, progress)]

        self._classes = stacks([_codes_as_label(case) for case in data])
        for case, codes in zip(data, self._classes, strict=True):
            codes[:] = class_numbers(torch.from_numpy(codes), case["classes"]).cpu().numpy()
        priors = [_prior_as_label(case) for case in data]
        own = all(_same_label(case, prior) for case, prior in zip(data, priors, strict=True))
        self._priors = [label for _, label in self._stacks] if own else stacks(priors)

    def serve(self, index: int, turn: int = 0) -> dict[str, Any]:
        """Return slice `index` of this epoch, augmented in another way in every turn."""
        case, position = self._table[self._served[index]]
        planes = {
            IMAGE: self._stacks[case][0][position],
            PRIOR: self._priors[case][position],
            LABEL: self._classes[case][position],
        }
        item = {key: torch.from_numpy(plane.copy()).float()[None] for key, plane in planes.items()}
        item[PRIOR] /= LEVELS
        if self.transform is None:
            return item
        return transformed(item, self.transform, self._seed(index, turn))


def _codes_as_label(case: Mapping[str, Any]) -> dict[str, Any]:
    """Return the case with its multi-class label as label, scaled so that codes stay levels."""
    return {**case, LABEL: case["classes"], "label_codes": None, "label_scale": LEVELS}


def _prior_as_label(case: Mapping[str, Any]) -> dict[str, Any]:
    return {**case, LABEL: case[PRIOR], "label_codes": case.get("prior_codes"), "label_scale": case.get("prior_scale")}


def _same_label(case: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(case.get(key) == other.get(key) for key in (LABEL, "label_codes", "label_scale"))
