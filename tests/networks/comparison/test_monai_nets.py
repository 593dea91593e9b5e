"""What the bundle's arguments make of MONAI's networks."""

from __future__ import annotations

import pytest
import torch

from scripts.networks.comparison.monai_nets import UNetPlusPlus


def test_nested_maps_follow_the_deepest() -> None:
    model = UNetPlusPlus(base_width=4)
    with torch.no_grad():
        for depth in (1, 2, 3, 4):
            head = getattr(model.network, f"final_conv_0_{depth}")
            head.weight.zero_()
            head.bias.fill_(float(depth))
        x = torch.randn(2, 1, 32, 32)
        assert torch.equal(model.eval()(x), torch.full((2, 1, 32, 32), 4.0))
        order = torch.tensor([4.0, 1.0, 2.0, 3.0]).view(1, 4, 1, 1)
        assert torch.equal(model.train()(x), order.expand(2, 4, 32, 32))


def test_nested_maps_are_of_one_channel() -> None:
    with pytest.raises(ValueError, match="out_channels is 2"):
        UNetPlusPlus(base_width=4, out_channels=2)
    with torch.device("meta"):
        model = UNetPlusPlus(base_width=4, out_channels=2, deep_supervision=False)
        assert model.train()(torch.empty(2, 1, 32, 32)).shape == (2, 2, 32, 32)
