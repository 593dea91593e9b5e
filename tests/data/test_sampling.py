"""An epoch holds every kind of slices as often as its weight says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from scripts.data.sampling import SliceMix, kind_of
from scripts.errors import UserError

KINDS = ["infected"] * 100 + ["infected"] * 10 + ["clean"] * 5 + ["lesion_free_picture"] * 3
CASES = [0] * 100 + [1] * 10 + [0] * 5 + [2, 3, 4]


def drawn(weights, count, seed=0):
    return SliceMix(weights, KINDS, CASES).draw(count, np.random.default_rng(seed))


def test_kinds_have_their_shares_and_cases_of_a_kind_the_same() -> None:
    served = drawn({"infected": 2, "clean": 1, "lesion_free_picture": 1, "picture": 7}, 80)
    assert Counter(KINDS[index] for index in served) == {"infected": 40, "clean": 20, "lesion_free_picture": 20}
    assert Counter(CASES[index] for index in served if KINDS[index] == "infected") == {0: 20, 1: 20}
    assert set(Counter(index for index in served if CASES[index] == 1).values()) == {2}
    assert list(served) == sorted(served)


def test_a_draw_depends_on_the_generator_alone() -> None:
    weights = {"infected": 1, "clean": 1}
    assert list(drawn(weights, 30)) == list(drawn(weights, 30)) != list(drawn(weights, 30, seed=1))
    assert len(drawn(weights, 31)) == 31


@pytest.mark.parametrize(
    "weights", [{"infectd": 1}, {"infected": -1}, {"picture": 1}, {"infected": "many"}, 0.5, "infected", [1, 2]]
)
def test_weights_that_mean_nothing_are_refused(weights) -> None:
    with pytest.raises(UserError, match="slice_mix"):
        SliceMix(weights, KINDS, CASES)


def test_kinds() -> None:
    labelled, free = {"label": "mask.png"}, {"lesion_free": True}
    flags = [(labelled, True, False), (labelled, False, False), (labelled, False, True), (free, False, False)]
    assert [kind_of(*one) for one in flags] == ["infected", "clean", "picture", "lesion_free"]
    assert kind_of(free, False, True) == "lesion_free_picture"
    assert kind_of({}, False, True) == kind_of({}, False, False) == "unlabeled"
