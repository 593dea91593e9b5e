"""The CT severity score against hand calculation."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.anatomy.lobes import LOBES
from scripts.report.lobes import measure_lobes


def lobes_with(*infected):
    """Five lobes of 200 voxels, one slice each, of which so many are infected."""
    lobes = np.zeros((20, 12, 6), np.uint8)
    mask = np.zeros(lobes.shape, np.uint8)
    for code, count in enumerate(infected, 1):
        lobes[:, :10, code] = code
        mask[:, :10, code] = (np.arange(200) < count).reshape(20, 10)
    mask[:, 11] = 1  # outside of all lobes
    return lobes, mask


@pytest.mark.parametrize(
    ("infected", "scores"),
    [
        ((0, 1, 9, 10, 50), (0, 1, 1, 2, 2)),  # 0, 0.5, 4.5, 5, 25 %
        ((51, 99, 100, 150, 151), (3, 3, 4, 4, 5)),  # 25.5, 49.5, 50, 75, 75.5 %
        ((200, 200, 200, 200, 200), (5, 5, 5, 5, 5)),
    ],
)
def test_borders_are_those_of_pan(infected, scores):
    found = measure_lobes(*lobes_with(*infected), voxel_ml=0.5, reason=None)
    parts = found["parts"]
    assert tuple(parts) == tuple(LOBES)
    assert tuple(part["score_of_5"] for part in parts.values()) == scores
    assert found["score_of_25"] == sum(scores)
    assert [part["infected_percent"] for part in parts.values()] == [count / 2 for count in infected]
    assert [part["infection_ml"] for part in parts.values()] == [count / 2 for count in infected]
    assert {part["lobe_ml"] for part in parts.values()} == {100.0}
    assert "10.1148/radiol.2020200370" in found["source"]


def test_without_a_voxel_size_there_are_percentages_only():
    found = measure_lobes(*lobes_with(0, 1, 9, 10, 50), voxel_ml=None, reason=None)
    assert set(found["parts"]["left_upper"]) == {"lobe_voxels", "infection_voxels", "infected_percent", "score_of_5"}
    assert found["score_of_25"] == 6


def test_a_reason_takes_the_scores_but_not_the_percentages():
    found = measure_lobes(*lobes_with(0, 1, 9, 10, 50), voxel_ml=None, reason="part of the lungs")
    assert (found["score_of_25"], found["reason"]) == (None, "part of the lungs")
    assert [part["score_of_5"] for part in found["parts"].values()] == [None] * 5
    assert found["parts"]["right_lower"]["infected_percent"] == 25


def test_a_missing_lobe_takes_the_sum_only():
    lobes, mask = lobes_with(0, 1, 9, 10, 50)
    lobes[lobes == 4] = 0
    found = measure_lobes(lobes, mask, None, None)
    assert (found["score_of_25"], found["parts"]["right_middle"]) == (None, None)
    assert found["reason"] == "the lobe mask lacks the right middle lobe"
    assert found["parts"]["right_lower"]["score_of_5"] == 2
