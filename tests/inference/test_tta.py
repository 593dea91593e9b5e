"""Test-time flips: against the formula, and the symmetry that they bring."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from scripts.errors import UserError
from scripts.inference.ood import FeatureMeans
from scripts.inference.tta import (
    FLIPPED_AXES,
    Settling,
    ViewAgreement,
    agreement_percent,
    average_over_flips,
    chosen_flips,
    stated_flips,
    view_count,
)

SLOPE = torch.tensor([[2.0, 1.0], [1.0, -4.0]])[None, None]
"""Prefers the first row and column; the mean over its four flips is 0."""


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1)).eval()


def test_mean_of_four_turned_back(network: nn.Module) -> None:
    images = torch.randn(2, 1, 6, 9)
    with torch.inference_mode():
        found = average_over_flips(network, images, 4)
        rows, columns = images.flip(2), images.flip(3)
        expected = (
            network(images)
            + network(rows).flip(2)
            + network(columns).flip(3)
            + network(images.rot90(2, (2, 3))).rot90(2, (2, 3))
        ) / 4
        assert not torch.allclose(network(images), expected, atol=1e-2)  # the network itself prefers a direction
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("views", "axis"), [(2, 2), (4, 2), (4, 3)])
def test_a_mirrored_image_gets_the_mirrored_answer(views: int, axis: int, network: nn.Module) -> None:
    images = torch.randn(1, 1, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(
            average_over_flips(network, images.flip(axis), views), average_over_flips(network, images, views).flip(axis)
        )


def test_as_many_views_as_are_asked_for(network: nn.Module) -> None:
    seen = []
    for views in FLIPPED_AXES:
        seen.clear()
        average_over_flips(lambda images: seen.append(images) or images, torch.rand(1, 1, 4, 4), views)
        assert len(seen) == views


def test_views_as_metadata_state_them() -> None:
    assert [stated_flips(view_count(one)) for one in (True, "false", 1, "2", 4)] == [True, False, False, 2, True]
    with pytest.raises(UserError, match="test_time_flips is 3; expected"):
        view_count(3)


def test_views_on_a_command_line() -> None:
    choices = [(None, None), (True, None), (None, 1), (True, 2)]
    assert [chosen_flips(*one) for one in choices] == [None, True, 1, 2]
    with pytest.raises(UserError, match="expected: one of them"):
        chosen_flips(False, 2)


def test_views_agree_where_all_of_them_mark() -> None:
    """The stand-in prefers the first row and column, so that every flip marks another corner."""
    images, agreement = torch.tensor([0.0, 4.0, -4.0]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2), ViewAgreement(0.5)
    average_over_flips(lambda images: images + SLOPE, images, 4, agreement=agreement)
    assert agreement.take().tolist() == [[0, 4], [4, 4], [0, 0]]
    average_over_flips(lambda images: images + SLOPE, images, 2, agreement=agreement)
    assert agreement.take().tolist() == [[2, 4], [4, 4], [0, 0]]
    assert agreement.take().shape == (0, 2)
    several = ViewAgreement(0.5, 0.99)
    average_over_flips(lambda images: images + SLOPE, images, 2, agreement=several)
    rows = several.take()
    assert rows.tolist() == [[2, 4, 0, 0], [4, 4, 2, 4], [0, 0, 0, 0]]
    assert [agreement_percent(part) for part in rows[:1].split(2, dim=1)] == [50, None]


def test_views_are_compared_at_the_decision_threshold() -> None:
    agreement = ViewAgreement(0.8)
    lowest = torch.tensor([0.79, 0.81, 0.5]).logit().reshape(1, 1, 3)
    agreement.add(lowest, torch.full_like(lowest, 0.9).logit())
    assert agreement.take().tolist() == [[1, 3]]


def test_an_image_is_seen_until_its_views_settle_that_nothing_is_marked() -> None:
    """By hand: the margins are 3, 1.73 and 1. NaN settles nothing."""
    values = torch.tensor([-8.0, -4.0, -2.5, -2.0, math.nan]).reshape(5, 1, 1, 1)
    calls: list[int] = []
    agreement, features = ViewAgreement(0.5), FeatureMeans()

    def network(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(len(images))
        return images + SLOPE, torch.full((len(images), 1), float(len(calls)))

    given = {"agreement": agreement, "features": features, "settling": Settling(0.5, 3.0)}
    found = average_over_flips(network, values.expand(5, 1, 2, 2), 4, **given)
    assert calls == [5, 4, 3, 2]
    two, three = torch.tensor([[1.5, -1.5], [1.5, -1.5]]), torch.tensor([[4.0, -1.0], [-1.0, -2.0]]) / 3
    means = torch.stack([SLOPE[0], two[None], three[None], torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)])
    torch.testing.assert_close(found, values + means, equal_nan=True)
    assert agreement.take().tolist() == [[0, 0], [0, 0], [0, 0], [0, 4], [0, 0]]
    assert features.take().tolist() == [[1]] * 5  # of the first view
    calls.clear()
    assert torch.equal(average_over_flips(network, values[:1], 4, settling=Settling(0.5)), values[:1] + SLOPE)
    assert calls == [1]


def test_without_a_rule_every_view_is_seen() -> None:
    calls: list[int] = []
    images = torch.full((2, 1, 2, 2), -50.0)
    average_over_flips(lambda images: calls.append(len(images)) or images, images, 4)
    assert calls == [2, 2, 2, 2]
