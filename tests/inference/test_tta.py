"""Test-time flips: against the formula, and the symmetry that they bring."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scripts.inference.tta import average_over_flips


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1)).eval()


def test_mean_of_four_turned_back(network: nn.Module) -> None:
    images = torch.randn(2, 1, 6, 9)
    with torch.inference_mode():
        found = average_over_flips(network, images)
        rows, columns = images.flip(2), images.flip(3)
        expected = (
            network(images)
            + network(rows).flip(2)
            + network(columns).flip(3)
            + network(images.rot90(2, (2, 3))).rot90(2, (2, 3))
        ) / 4
        assert not torch.allclose(network(images), expected, atol=1e-2)  # the network itself prefers a direction
    torch.testing.assert_close(found, expected)


def test_a_mirrored_image_gets_the_mirrored_answer(network: nn.Module) -> None:
    images = torch.randn(1, 1, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(
            average_over_flips(network, images.flip(3)), average_over_flips(network, images).flip(3)
        )
