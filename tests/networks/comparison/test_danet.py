"""The two attentions of DANet against their sums written out."""

from __future__ import annotations

import torch
from torch import nn

from scripts.networks.comparison.danet import ChannelAttention, DANet, PositionAttention


def flat(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(2)  # (B, C, N)


def test_position_attention() -> None:
    torch.manual_seed(0)
    module, x = PositionAttention(16).double(), torch.randn(2, 16, 3, 4, dtype=torch.float64)
    assert torch.equal(module(x), x)  # gamma is 0 at first
    nn.init.constant_(module.gamma, 0.7)
    query, key, value = flat(module.query(x)), flat(module.key(x)), flat(module.value(x))
    expected = flat(x).clone()
    for b in range(2):
        for i in range(12):
            weights = torch.softmax(torch.stack([query[b, :, i] @ key[b, :, j] for j in range(12)]), dim=0)
            expected[b, :, i] += 0.7 * sum(weights[j] * value[b, :, j] for j in range(12))
    torch.testing.assert_close(flat(module(x)), expected)


def test_channel_attention() -> None:
    torch.manual_seed(0)
    module, x = ChannelAttention().double(), torch.randn(2, 5, 3, 4, dtype=torch.float64)
    assert torch.equal(module(x), x)
    nn.init.constant_(module.gamma, 0.7)
    expected = flat(x).clone()
    for b in range(2):
        for i in range(5):
            energy = torch.stack([flat(x)[b, i] @ flat(x)[b, j] for j in range(5)])
            weights = torch.softmax(energy.max() - energy, dim=0)
            expected[b, i] += 0.7 * sum(weights[j] * flat(x)[b, j] for j in range(5))
    torch.testing.assert_close(flat(module(x)), expected)


def test_heads_are_those_of_their_own_attention() -> None:
    """Main map: both; then the positions, then the channels."""
    for channel, reached in ((0, (True, True)), (1, (True, False)), (2, (False, True))):
        torch.manual_seed(0)
        model = DANet(base_width=4).train()
        model(torch.randn(2, 1, 64, 64))[:, channel].square().sum().backward()
        found = [
            any(p.grad is not None and p.grad.any() for p in m.parameters()) for m in (model.position, model.channel)
        ]
        assert tuple(found) == reached
