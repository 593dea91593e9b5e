"""The fusion modules against Eq. 3-4 written out as slow float64 numpy loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from scripts.networks.resunet.fusion import AddFusion, AttentionFusion, ConcatFusion

WIDTH = 4
CHANNELS = (4, 4, 6, 5, 7)
SIZES = ((16, 32), (8, 16), (4, 8), (2, 4), (1, 2))
OPTIONS = list(product(("spatial", "channelwise"), ("raw", "projected"), (False, True)))

Upsample = Callable[[np.ndarray, tuple[int, int]], np.ndarray]
Conv = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def pyramid(seed: int = 0, batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, c, *size, generator=generator, dtype=torch.float64)
        for c, size in zip(CHANNELS, SIZES, strict=True)
    ]


def randomised(module: nn.Module, seed: int = 1) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
    return module


def weights(conv: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    return conv.weight.detach().numpy(), conv.bias.detach().numpy()


def projected(module: nn.Module, features: Sequence[torch.Tensor], conv: Conv, up: Upsample) -> list[np.ndarray]:
    """X_i^u: upsampled first and projected second, the order of Fig. 4."""
    return [
        conv(up(feature.numpy(), SIZES[0]), *weights(project))
        for feature, project in zip(features, module.project, strict=True)
    ]


def equation_3(
    module: AttentionFusion, features: Sequence[torch.Tensor], conv: Conv, up: Upsample, raw: bool, top: bool
) -> np.ndarray:
    x = projected(module, features, conv, up)
    p = [1 / (1 + np.exp(-conv(x_i, *weights(gate)))) for x_i, gate in zip(x, module.gates, strict=True)]
    y = [p_i * x_i for p_i, x_i in zip(p, x, strict=True)]
    first = 0 if top else 1
    return (features[0].numpy() if raw else x[0]) + y[0] + (1 - p[0]) * sum(y[first:])


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("gate", "residual", "include_top"), OPTIONS)
def test_attention_is_equation_3(
    gate: str, residual: str, include_top: bool, numpy_conv: Conv, numpy_upsample: Upsample
) -> None:
    module = randomised(AttentionFusion(CHANNELS, WIDTH, gate=gate, residual=residual, include_top=include_top))
    features = pyramid()
    expected = equation_3(module, features, numpy_conv, numpy_upsample, residual == "raw", include_top)
    with torch.no_grad():
        fused = module(features)
    assert fused.shape == (2, WIDTH, 16, 32)
    np.testing.assert_allclose(fused.numpy(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("residual", "include_top"), product(("raw", "projected"), (False, True)))
@pytest.mark.parametrize("channels", [1, 3])
def test_a_convolution_of_the_map_needs_no_map(residual: str, include_top: bool, channels: int) -> None:
    """Result and every gradient, of the layers and of the levels."""
    module = randomised(AttentionFusion(CHANNELS, WIDTH, residual=residual, include_top=include_top))
    out = randomised(nn.Conv2d(WIDTH, channels, kernel_size=1), seed=2)
    features = [feature.requires_grad_() for feature in pyramid()]
    learned = [*features, *module.parameters(), *out.parameters()]
    ways = (out(module(features)), module.reduced(features, out.weight, out.bias))
    torch.testing.assert_close(ways[1], ways[0], rtol=1e-10, atol=1e-10)
    expected, found = (torch.autograd.grad(logits.sigmoid().square().sum(), learned) for logits in ways)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_default_options_are_the_papers(numpy_conv: Conv, numpy_upsample: Upsample) -> None:
    module, features = randomised(AttentionFusion(CHANNELS, WIDTH)), pyramid()
    expected = equation_3(module, features, numpy_conv, numpy_upsample, raw=True, top=False)
    np.testing.assert_allclose(module(features).detach().numpy(), expected, rtol=1e-10, atol=1e-10)
    assert [gate.weight.shape for gate in module.gates] == [(1, WIDTH, 3, 3)] * 5


def test_every_option_changes_the_map() -> None:
    """Eight options with the same weights (but for the gates) give eight different maps."""
    features = pyramid()
    maps = [
        randomised(AttentionFusion(CHANNELS, WIDTH, gate=gate, residual=residual, include_top=top))(features)
        for gate, residual, top in OPTIONS
    ]
    for i, first in enumerate(maps):
        for second in maps[i + 1 :]:
            assert (first - second).abs().max() > 1e-2


def set_gates(module: AttentionFusion, bias: Sequence[float]) -> None:
    """Gates that look at nothing: P_i = sigmoid(bias_i) everywhere."""
    with torch.no_grad():
        for gate, value in zip(module.gates, bias, strict=True):
            gate.weight.zero_()
            gate.bias.fill_(value)


def test_closed_gates_leave_the_raw_top_map() -> None:
    module, features = randomised(AttentionFusion(CHANNELS, WIDTH)), pyramid()
    set_gates(module, [-800.0] * 5)
    assert torch.equal(module(features), features[0])


def test_open_top_gate_shuts_the_lower_levels_out() -> None:
    module, features = randomised(AttentionFusion(CHANNELS, WIDTH)), pyramid()
    set_gates(module, [800.0] * 5)
    expected = features[0] + module.project[0](features[0])
    torch.testing.assert_close(module(features), expected, rtol=1e-12, atol=1e-12)
    others = [features[0], *pyramid(seed=9)[1:]]
    assert torch.equal(module(others), module(features))


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_closed_top_gate_lets_exactly_the_open_level_through(level: int, numpy_upsample: Upsample) -> None:
    module, features = randomised(AttentionFusion(CHANNELS, WIDTH)), pyramid()
    set_gates(module, [800.0 if i == level else -800.0 for i in range(5)])
    with torch.no_grad():
        lower = numpy_upsample(module.project[level](features[level]).numpy(), SIZES[0])
        np.testing.assert_allclose(module(features).numpy(), features[0].numpy() + lower, rtol=1e-12, atol=1e-12)


def test_add_is_the_sum_of_projected_levels(numpy_conv: Conv, numpy_upsample: Upsample) -> None:
    module, features = randomised(AddFusion(CHANNELS, WIDTH)), pyramid()
    expected = sum(projected(module, features, numpy_conv, numpy_upsample))
    np.testing.assert_allclose(module(features).detach().numpy(), expected, rtol=1e-10, atol=1e-10)


def test_concat_merges_the_levels_finest_first(numpy_conv: Conv, numpy_upsample: Upsample) -> None:
    module, features = randomised(ConcatFusion(CHANNELS, WIDTH)), pyramid()
    stacked = np.concatenate(projected(module, features, numpy_conv, numpy_upsample), axis=1)
    expected = numpy_conv(stacked, *weights(module.merge))
    fused = module(features).detach().numpy()
    assert fused.shape == (2, WIDTH, 16, 32)
    np.testing.assert_allclose(fused, expected, rtol=1e-10, atol=1e-10)


PAPER_CHANNELS = (64, 64, 128, 256, 512)


def test_attention_parameters_of_the_paper() -> None:
    spatial = AttentionFusion(PAPER_CHANNELS, 64)
    channelwise = AttentionFusion(PAPER_CHANNELS, 64, gate="channelwise")
    assert count(spatial.project) == count(channelwise.project) == 65_856
    assert count(spatial.gates) == 2_885
    assert count(channelwise.gates) == 20_800
    assert count(spatial) == 65_856 + 2_885
    assert count(channelwise) == 65_856 + 20_800


def test_add_and_concat_parameters() -> None:
    assert count(AddFusion(PAPER_CHANNELS, 64)) == 65_856
    assert count(ConcatFusion(PAPER_CHANNELS, 64)) == 65_856 + 20_544
    assert count(ConcatFusion(PAPER_CHANNELS, 64).merge) == 20_544


@pytest.mark.parametrize("kind", [AttentionFusion, AddFusion, ConcatFusion])
def test_fusion_leaves_its_input_alone(kind: type[nn.Module]) -> None:
    module, features = randomised(kind(CHANNELS, WIDTH)), pyramid()
    copies = [feature.clone() for feature in features]
    first = module(features)
    assert all(torch.equal(a, b) for a, b in zip(features, copies, strict=True))
    assert torch.equal(module(features), first)


@pytest.mark.parametrize("kind", [AttentionFusion, AddFusion, ConcatFusion])
def test_every_parameter_and_level_gets_a_gradient(kind: type[nn.Module]) -> None:
    module = randomised(kind(CHANNELS, WIDTH))
    features = [feature.requires_grad_() for feature in pyramid()]
    module(features).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    assert all(f.grad is not None and f.grad.abs().sum() > 0 for f in features)


@pytest.mark.parametrize("argument", [{"gate": "channel"}, {"residual": "none"}])
def test_unknown_option_is_refused(argument: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(argument.values()))):
        AttentionFusion(CHANNELS, WIDTH, **argument)


def test_raw_residual_needs_a_top_map_of_the_fused_width() -> None:
    with pytest.raises(ValueError, match=r"\b4\b.*\b3\b|\b3\b.*\b4\b"):
        AttentionFusion((3, 4, 6, 5, 7), WIDTH)
    assert AttentionFusion((3, 4, 6, 5, 7), WIDTH, residual="projected")
