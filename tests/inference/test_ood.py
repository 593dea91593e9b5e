"""Out-of-distribution score: by hand, and the layers whose features are compared."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from scripts.errors import UserError
from scripts.inference.inferer import ScanInferer
from scripts.inference.ood import CENTRES, OODScore, deep_layers
from scripts.networks.registry import create_network

ROWS = torch.tensor([[0.0, 10.0], [2.0, 14.0]], dtype=torch.float64)


def test_score_by_hand() -> None:
    learnt = OODScore.of({"layer": 2}, ROWS, threshold=2)
    assert learnt.mean == (1, 12)
    assert learnt.sd == (1, 2)
    assert sorted(learnt.centres) == [(-1, -1), (1, 1)]  # two slices, each a centre
    rows = torch.tensor([[2.0, 14.0], [4.0, 12.0], [1.0, 12.0]], dtype=torch.float64)  # z-scores 1 1, 3 0, 0 0
    torch.testing.assert_close(learnt(rows), torch.tensor([0, (5 / 2) ** 0.5, 1.0], dtype=torch.float64))


def test_score_of_earlier_metadata_by_hand() -> None:
    """One layer, whose mean is the only centre."""
    stated = {"layer": "layer", "mean": [1.0, 12.0], "sd": [1.0, 2.0], "limit": 2.0, "limit_volumes": None}
    known = OODScore.from_metadata({"familiarity": stated})
    assert known.layers == {"layer": 2}
    rows = torch.tensor([[1.0, 12.0], [4.0, 12.0], [2.0, 14.0]], dtype=torch.float64)
    torch.testing.assert_close(known(rows), torch.tensor([0, (9 / 2) ** 0.5, 1.0], dtype=torch.float64))


def test_each_layer_counts_as_much_whatever_its_channels() -> None:
    known = OODScore({"small": 1, "large": 3}, (0.0,) * 4, (1.0,) * 4, ((0.0,) * 4,), 1.0)
    rows = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 2.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(known(rows), torch.full((2,), 2**0.5, dtype=torch.float64))


def test_what_lies_between_kinds_of_slices_is_far_from_all_of_them() -> None:
    generator = torch.Generator().manual_seed(0)
    kinds = 10.0 * torch.randint(0, 2, (400, 3), generator=generator, dtype=torch.float64)
    rows = kinds + 0.1 * torch.randn(400, 3, generator=generator, dtype=torch.float64)
    learnt = OODScore.of({"layer": 3}, rows, 1.0)
    assert len(learnt.centres) == CENTRES
    assert learnt == OODScore.of({"layer": 3}, rows, 1.0)  # the same every time
    (between,) = learnt(rows.mean(dim=0)[None])
    assert between > 0.9  # in the middle of a cube whose corners have z-scores of 1 and -1
    assert learnt(rows).mean() < 0.1


def test_a_channel_without_deviation_is_no_division_by_zero() -> None:
    rows = torch.tensor([[0.0, 5.0], [2.0, 5.0]], dtype=torch.float64)
    learnt = OODScore.of({"layer": 2}, rows, threshold=2)
    assert learnt.sd[1] == pytest.approx(1e-3)
    assert torch.isfinite(learnt(torch.tensor([[0.0, 6.0]], dtype=torch.float64))).all()


@pytest.mark.filterwarnings("error")
def test_slices_that_are_all_the_same_are_one_centre() -> None:
    learnt = OODScore.of({"layer": 2}, torch.ones(20, 2, dtype=torch.float64), threshold=2)
    assert len(learnt.centres) == 1


def test_the_metadata_gives_back_what_it_was_given() -> None:
    learnt = OODScore.of({"deep": 3, "shallow": 2}, torch.rand(40, 5, dtype=torch.float64), threshold=1.23456)
    stated = json.loads(json.dumps({"familiarity": learnt.as_metadata()}))
    assert OODScore.from_metadata(stated) == learnt
    assert OODScore.from_metadata({}) is None


def test_the_order_of_a_files_keys_says_nothing() -> None:
    learnt = OODScore.of({"z": 3, "a": 2}, torch.rand(40, 5, dtype=torch.float64), threshold=1.0)
    stated = json.loads(json.dumps({"familiarity": learnt.as_metadata()}, sort_keys=True))
    assert list(OODScore.from_metadata(stated).layers) == ["z", "a"]


def test_features_of_another_network_are_refused() -> None:
    learnt = OODScore.of({"layer": 2}, ROWS, threshold=2)
    with pytest.raises(UserError, match="3 channels in layer, 2 in familiarity of the metadata"):
        learnt(torch.zeros(4, 3))


@pytest.mark.filterwarnings("error")
def test_slices_that_nearly_coincide_are_one_centre() -> None:
    rows = torch.ones(100, 2, dtype=torch.float64) + 1e-12 * torch.rand(100, 2, dtype=torch.float64)
    rows[0] = 5.0
    assert len(OODScore.of({"layer": 2}, rows, threshold=2).centres) == 2


def test_volumes_have_a_limit_of_their_own_where_the_metadata_state_one() -> None:
    features = torch.rand(9, 5, dtype=torch.float64)
    stated = OODScore.of({"layer": 5}, features, 3.0, 1.5).as_metadata()
    known = OODScore.from_metadata({"familiarity": stated})
    assert [known.limit(slices) for slices in (1, 2)] == [3.0, 1.5]
    del stated["limit_volumes"]  # as earlier versions wrote it
    known = OODScore.from_metadata({"familiarity": stated})
    assert [known.limit(slices) for slices in (1, 2)] == [3.0, 3.0]


def test_the_deepest_layer_has_the_fewest_pixels_then_the_most_channels_then_comes_last() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 2, 1),
        nn.AdaptiveAvgPool2d(1),  # a single pixel says nothing of a place
    )
    assert list(deep_layers(network.eval(), 32).items()) == [("2", 8), ("0", 4)]


def test_of_larger_maps_the_three_sizes_count_that_lead_to_the_deepest_layer() -> None:
    down = [nn.Conv2d(count, 2 * count, 3, stride=2, padding=1) for count in (1, 2, 4, 8)]
    up = [nn.ConvTranspose2d(16, 64, 2, stride=2), nn.Conv2d(64, 1, 1)]  # wider, and later
    network = nn.Sequential(*down, *up).eval()
    assert list(deep_layers(network, 64).items()) == [("3", 16), ("2", 8), ("1", 4)]


@pytest.mark.parametrize("name", ["resunet", "infnet", "cares_unet"])
def test_features_of_real_networks(name: str) -> None:
    network = create_network(name, base_width=8).eval()
    layers = deep_layers(network, 64)
    inferer = ScanInferer({"preprocessing": {}}, layers=tuple(layers))
    outputs: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    for layer, kept in outputs.items():
        network.get_submodule(layer).register_forward_hook(lambda _, __, output, kept=kept: kept.append(output))
    with torch.inference_mode():
        inferer(torch.randn(1, 1, 64, 64, 2), network)
        inferer(torch.randn(1, 1, 64, 64, 1), network)
    rows = inferer.features.take()
    expected = torch.cat([torch.cat(kept).mean(dim=(2, 3)) for kept in outputs.values()], dim=1)
    torch.testing.assert_close(rows, expected.double(), atol=1e-6, rtol=1e-5)
    assert rows.shape == (3, sum(layers.values()))
    assert inferer.features.take().numel() == 0
