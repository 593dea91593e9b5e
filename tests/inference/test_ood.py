"""Out-of-distribution score: by hand, and the layer whose features are compared."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scripts.inference.inferer import ScanInferer
from scripts.inference.ood import OODScore, deepest_layer
from scripts.networks.registry import create_network


def test_score_by_hand() -> None:
    learnt = OODScore.of("layer", torch.tensor([[0.0, 10.0], [2.0, 14.0]], dtype=torch.float64), threshold=2)
    assert learnt.mean == (1, 12)
    assert learnt.sd == (1, 2)
    rows = torch.tensor([[1.0, 12.0], [4.0, 12.0], [2.0, 14.0]], dtype=torch.float64)
    torch.testing.assert_close(learnt(rows), torch.tensor([0, (9 / 2) ** 0.5, 1.0], dtype=torch.float64))


def test_a_channel_without_deviation_is_no_division_by_zero() -> None:
    learnt = OODScore.of("layer", torch.tensor([[0.0, 5.0], [2.0, 5.0]], dtype=torch.float64), threshold=2)
    assert learnt.sd[1] == pytest.approx(1e-3)
    assert torch.isfinite(learnt(torch.tensor([[0.0, 6.0]], dtype=torch.float64))).all()


def test_the_metadata_gives_back_what_it_was_given() -> None:
    learnt = OODScore.of("layer", torch.rand(9, 5, dtype=torch.float64), threshold=1.23456)
    assert OODScore.from_metadata({"familiarity": learnt.as_metadata()}) == learnt
    assert OODScore.from_metadata({}) is None


def test_volumes_have_a_limit_of_their_own_where_the_metadata_state_one() -> None:
    features = torch.rand(9, 5, dtype=torch.float64)
    stated = OODScore.of("layer", features, 3.0, 1.5).as_metadata()
    known = OODScore.from_metadata({"familiarity": stated})
    assert [known.limit(picture) for picture in (True, False)] == [3.0, 1.5]
    del stated["limit_volumes"]  # as earlier versions wrote it
    known = OODScore.from_metadata({"familiarity": stated})
    assert [known.limit(picture) for picture in (True, False)] == [3.0, 3.0]


def test_the_deepest_layer_has_the_fewest_pixels_then_the_most_channels_then_comes_last() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 2, 1),
        nn.AdaptiveAvgPool2d(1),  # a single pixel says nothing of a place
    )
    assert deepest_layer(network.eval(), 32) == "2"


@pytest.mark.parametrize("name", ["resunet", "infnet", "cares_unet"])
def test_features_of_real_networks(name: str) -> None:
    network = create_network(name, base_width=8).eval()
    layer = deepest_layer(network, 64)
    inferer = ScanInferer({"preprocessing": {}}, layer=layer)
    outputs = []
    network.get_submodule(layer).register_forward_hook(lambda _, __, output: outputs.append(output))
    with torch.inference_mode():
        inferer(torch.randn(1, 1, 64, 64, 2), network)
        inferer(torch.randn(1, 1, 64, 64, 1), network)
    rows = inferer.features.take()
    expected = torch.cat([output.mean(dim=(2, 3)) for output in outputs])
    torch.testing.assert_close(rows, expected.double(), atol=1e-6, rtol=1e-5)
    assert rows.shape[0] == 3
    assert inferer.features.take().numel() == 0
