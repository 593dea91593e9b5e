"""The FV block against its formula, and without the defect of the published code."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scripts.networks.fv_paspp.blocks3d import FeatureVariation


def block(variation: str, channels: int = 4) -> FeatureVariation:
    torch.manual_seed(0)
    module = FeatureVariation(channels, variation).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
        for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm3d)):
            norm.running_mean.normal_(std=0.2)
            norm.running_var.uniform_(0.5, 2)
    return module.eval()


def cbr(x: torch.Tensor, weights: dict[str, torch.Tensor], prefix: str, padding: int) -> torch.Tensor:
    w = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    x = F.conv3d(x, w["conv.weight"], w["conv.bias"], padding=padding)
    x = F.batch_norm(
        x, w["adn.N.running_mean"], w["adn.N.running_var"], w["adn.N.weight"], w["adn.N.bias"], training=False
    )
    return F.relu(x)


@pytest.mark.parametrize("variation", ["se", "ce"])
def test_output_is_the_formula(variation: str) -> None:
    module, x = block(variation), torch.randn(2, 4, 5, 6, 3, dtype=torch.float64)
    w = module.state_dict()
    entered = cbr(x, w, "enter.", padding=0)
    hidden = F.relu(F.linear(entered.mean((2, 3, 4)), w["channel_gate.0.weight"], w["channel_gate.0.bias"]))
    gain = torch.sigmoid(F.linear(hidden, w["channel_gate.2.weight"], w["channel_gate.2.bias"]))
    assert hidden.shape == (2, 2)  # half of the channels
    assert gain.shape == ((2, 4) if variation == "se" else (2, 1))
    places = cbr(entered, w, "spatial_gate.0.", padding=1)
    places = torch.sigmoid(F.conv3d(places, w["spatial_gate.1.weight"], w["spatial_gate.1.bias"], padding=1))
    expanded = torch.stack([entered[i] * gain[i].expand(4).view(4, 1, 1, 1) for i in range(2)])
    expected = x + cbr(torch.cat([entered, expanded, entered * places], dim=1), w, "merge.", padding=1)
    torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "se", "ce"), [(64, 561_888, 559_809), (128, 2_246_080, 2_237_825), (256, 8_981_376, 8_948_481)]
)
def test_parameters(channels: int, se: int, ce: int) -> None:
    with torch.device("meta"):
        counts = [sum(p.numel() for p in FeatureVariation(channels, v).parameters()) for v in ("se", "ce")]
    assert counts == [se, ce]


@pytest.mark.parametrize("variation", ["se", "ce"])
def test_the_first_spatial_convolution_is_alive(variation: str) -> None:
    """In published code the second convolution sees the block's input,
    so that the first changes nothing."""
    module, x = block(variation), torch.randn(1, 4, 4, 4, 2, dtype=torch.float64)
    before = module(x)
    module.train()(x).square().sum().backward()
    first = module.spatial_gate[0].conv.weight
    assert first.grad is not None
    assert first.grad.abs().max() > 0
    with torch.no_grad():
        first.mul_(-1)
    assert not torch.allclose(module.eval()(x), before)
