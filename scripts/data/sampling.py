"""Which slices an epoch serves: how many with lesion and without, of volumes and pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..settings import amount

SAMPLINGS = ("all", "infected", "balanced")

KINDS = ("infected", "clean", "picture", "lesion_free", "lesion_free_picture", "unlabeled")
"""Kinds of slices: of a volume with lesion or without; a picture; a slice or picture of a case that
is known to hold no lesion; one of a case without label."""


def kind_of(case: Mapping[str, Any], infected: bool, picture: bool) -> str:
    """Return which of `KINDS` a slice of a case is."""
    if case.get("lesion_free"):
        return "lesion_free_picture" if picture else "lesion_free"
    if "label" not in case:
        return "unlabeled"
    return "picture" if picture else "infected" if infected else "clean"


class SliceMix:
    """Draws epochs in which every kind of slices has its share, and of a kind every case the same.

    A few long volumes then do not outnumber the short ones of other hospitals. Of a case no slice
    comes twice before all of them have come.

    Args:
        weights: weight of each of `KINDS`; what is not named has 0. Kinds without a slice leave
            their share to the others.
        kinds: kind of each slice.
        cases: case of each slice.

    Raises:
        UserError: no weights by kind, an unknown kind, a weight below 0, or weights that leave no
            slice.
    """

    def __init__(self, weights: Mapping[str, float], kinds: Sequence[str], cases: Sequence[int]) -> None:
        if not isinstance(weights, Mapping):
            raise UserError(f"slice_mix is {weights!r}; expected: a weight for each of {', '.join(KINDS)}")
        unknown = set(weights) - set(KINDS)
        if unknown:
            raise UserError(f"slice_mix names {', '.join(sorted(map(str, unknown)))}; expected: {', '.join(KINDS)}")
        checked = {kind: amount(f"slice_mix#{kind}", one) for kind, one in weights.items()}
        slices: dict[str, dict[int, list[int]]] = {kind: {} for kind in KINDS if checked.get(kind)}
        for index, (kind, case) in enumerate(zip(kinds, cases, strict=True)):
            if kind in slices:
                slices[kind].setdefault(case, []).append(index)
        self.slices = {kind: [np.array(one) for one in found.values()] for kind, found in slices.items() if found}
        if kinds and not self.slices:
            raise UserError(
                f"slice_mix {dict(weights)} leaves no slice; expected: a weight for one of {sorted(set(kinds))}"
            )
        total = sum(checked[kind] for kind in self.slices)
        self.shares = {kind: checked[kind] / total for kind in self.slices}

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Return `count` slices, sorted, some of them several times."""
        if not self.slices:
            return np.arange(0)
        bounds = np.rint(np.cumsum([0.0, *self.shares.values()]) * count).astype(int)
        drawn = []
        for cases, size in zip(self.slices.values(), np.diff(bounds), strict=True):
            sizes = np.bincount(_in_turn(np.arange(len(cases)), size, rng), minlength=len(cases))
            drawn += [_in_turn(slices, own, rng) for slices, own in zip(cases, sizes, strict=True)]
        return np.sort(np.concatenate(drawn))


def balanced(
    infected: NDArray[np.intp], clean: NDArray[np.intp], picture: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return all slices with lesion and as many of the others, pictures among them as they are."""
    drawn = min(len(infected), len(clean))
    shown = picture[clean]
    pictures = round(drawn * shown.mean()) if drawn else 0  # as many every time, so that epochs are alike
    sizes = ((clean[~shown], drawn - pictures), (clean[shown], pictures))
    return np.sort(np.concatenate([infected, *(rng.choice(*each, replace=False) for each in sizes)]))


def with_pictures(
    chosen: NDArray[np.intp], picture: NDArray[np.bool_], share: float, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Repeat the pictures among the chosen slices until they make up their share."""
    pictures, others = chosen[picture[chosen]], chosen[~picture[chosen]]
    wanted = round(share / (1 - share) * len(others))
    if not len(pictures) or wanted <= len(pictures):
        return chosen
    return np.sort(np.concatenate([others, _in_turn(pictures, wanted, rng)]))


def _in_turn(slices: NDArray[np.intp], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw from slices so that none comes twice before all have come."""
    whole, rest = divmod(count, len(slices))
    return np.concatenate([np.repeat(slices, whole), rng.choice(slices, size=rest, replace=False)])
