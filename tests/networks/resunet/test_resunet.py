"""What the ResUNet's options promise beyond what every network does (`test_contract.py`)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from scripts.networks.blocks import UPSAMPLINGS
from scripts.networks.resunet.fusion import AttentionFusion
from scripts.networks.resunet.resunet import ResUNet
from scripts.version import BUNDLE
from tests.networks.shared import FUSIONS, image, reload, slopes, variant_name

VARIANTS: list[dict[str, Any]] = [
    *FUSIONS,
    {"edge_stages_dec": (1, 2), "mask_stages_dec": (3, 4, 5)},
    {"upsampling": "bilinear"},
]
NO_HEADS: dict[str, Any] = {"edge_stages": (), "mask_stages": ()}


def meta_network(**arguments: Any) -> ResUNet:
    """A network without storage: counts and shapes cost nothing."""
    with torch.device("meta"):
        return ResUNet(**arguments)


def network(seed: int = 0, base_width: int = 8, **arguments: Any) -> ResUNet:
    """A narrow network in float64 that has seen one batch,
    so that its norms have statistics of their own."""
    torch.manual_seed(seed)
    model = ResUNet(base_width=base_width, **arguments).double().train()
    with torch.no_grad():
        model(image(2, 1, 32, 32, seed=seed))
    return model


# ------------------------------------------------------------------------------------ output
# contract


@pytest.mark.parametrize(
    ("arguments", "channels"),
    [
        ({}, 6),
        ({"deep_supervision": False}, 1),
        (NO_HEADS, 1),
        ({"fusion": "none", **NO_HEADS}, 1),
        ({"edge_stages": (1,), "mask_stages": ()}, 2),
        (
            {
                "edge_stages": [1, 2],
                "mask_stages": [3, 4, 5],
                "edge_stages_dec": [1, 2],
                "mask_stages_dec": [3, 4, 5],
            },
            11,
        ),
        ({"out_channels": 3}, 8),
        ({"in_channels": 2}, 6),
    ],
)
def test_output_shape_by_mode(arguments: dict[str, Any], channels: int) -> None:
    model = meta_network(base_width=8, **arguments)
    x = torch.empty(2, arguments.get("in_channels", 1), 48, 32, device="meta")
    out = arguments.get("out_channels", 1)
    assert model.train()(x).shape == (2, channels, 48, 32)
    assert model.eval()(x).shape == (2, out, 48, 32)
    assert model.train()(x).shape == (2, channels, 48, 32)


def test_output_is_logits() -> None:
    model = network()
    with torch.no_grad():
        model.out.weight.zero_()
        model.out.bias.fill_(-12.5)
        assert torch.equal(model.eval()(image(1, 1, 32, 32)), torch.full((1, 1, 32, 32), -12.5, dtype=torch.float64))


def test_smallest_image() -> None:
    assert network().eval()(image(1, 1, 16, 16)).isfinite().all()


@pytest.mark.parametrize("size", [(40, 64), (64, 40), (24, 24), (17, 16), (8, 16)])
def test_size_that_is_no_multiple_of_16_is_refused(size: tuple[int, int]) -> None:
    model = meta_network(base_width=8)
    odd = next(n for n in size if n % 16)
    for mode in (True, False):
        with pytest.raises(ValueError, match=rf"\b{odd}\b|{size[0]}x{size[1]}"):
            model.train(mode)(torch.empty(2, 1, *size, device="meta"))


@pytest.mark.parametrize(
    "arguments",
    [
        {"fusion": "sum"},
        {"fusion": ""},
        {"gate": "channel"},
        {"residual": "skip"},
        {"fusion": "add", "gate": "channel"},
        {"fusion": "none", "residual": "skip"},
        {"upsampling": "nearest"},
        {"edge_stages": (1, 1)},
        {"edge_stages": (0,)},
        {"edge_stages": (6,), "mask_stages": ()},
        {"mask_stages": (-1,)},
        {"edge_stages_dec": (6,)},
        {"mask_stages_dec": (0,)},
        {"edge_stages": (1, 2, 3), "mask_stages": (3, 4, 5)},
        {"edge_stages_dec": (2,), "mask_stages_dec": (2,)},
        {"base_width": 6},
        {"base_width": 2},
        {"base_width": 0},
        {"base_width": -4},
        {"dropout": 1.0},
        {"dropout": -0.1},
    ],
)
def test_bad_argument_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        meta_network(**{"base_width": 8, **arguments})


def test_a_stage_may_be_edge_in_the_encoder_and_mask_in_the_decoder() -> None:
    model = meta_network(base_width=4, edge_stages=(1,), mask_stages=(), mask_stages_dec=(1,))
    assert (model.edge_heads, model.mask_heads) == (1, 1)


# -------------------------------------------------------------------------------------------
# training


@pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)
def test_every_parameter_is_trained(variant: dict[str, Any]) -> None:
    model = network(**variant).train()
    logits = model(image(2, 1, 32, 32))
    (logits * image(*logits.shape, seed=6)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    # A bias before a batch norm in training mode cancels; every other parameter must move.
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d)]
    idle = {id(a.bias) for a, b in pairwise(layers) if isinstance(b, nn.BatchNorm2d)}
    assert [name for name, p in model.named_parameters() if id(p) not in idle and not p.grad.any()] == []


def test_gradient_is_the_derivative() -> None:
    """Along a random direction of all parameters, for main map and heads at once:
    nothing is cut off."""
    model, x = network().train(), image(2, 1, 32, 32)
    weight = image(2, 6, 32, 32, seed=6)
    slope, difference = slopes(model, x, weight, 1e-5)
    assert slope == pytest.approx(difference, rel=1e-4)


def test_each_head_trains_its_own_stage_only() -> None:
    """The gradient of the first edge channel stops at S1:
    nothing deeper than the stem learns from it."""
    model = network().train()
    model(image(2, 1, 32, 32))[:, 1].sum().backward()
    reached = [p for p in model.parameters() if p.grad is not None and p.grad.any()]
    assert sum(p.numel() for p in reached) == 9 * 8 + 2 * 8 + (8 + 1)


# ------------------------------------------------------------------------------- prediction and
# saving


@pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)
def test_saved_weights_predict_the_same(variant: dict[str, Any]) -> None:
    """The official code keeps heads and attention in plain lists:
    reloading changes its predictions."""
    first, second, x = network(seed=0, **variant), network(seed=1, **variant), image(2, 1, 32, 32)
    assert not torch.equal(first.eval()(x), second.eval()(x))
    reload(first, second)
    assert torch.equal(first.eval()(x), second.eval()(x))
    assert torch.equal(first.train()(x), second.train()(x))


@pytest.mark.parametrize(
    "variant",
    [*VARIANTS, NO_HEADS, {"fusion": "none", **NO_HEADS}, {"dropout": 0.2, "deep_supervision": False}],
)
def test_torchscript_is_eager(variant: dict[str, Any]) -> None:
    model, x = network(base_width=4, **variant), image(2, 1, 32, 48)
    scripted = torch.jit.script(model)
    with torch.no_grad():
        torch.testing.assert_close(scripted.eval()(x), model.eval()(x), rtol=1e-10, atol=1e-10)
        if "dropout" not in variant:
            torch.testing.assert_close(scripted.train()(x), model.train()(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_training_mode_computes_the_main_map_of_the_fusion(layout: torch.memory_format) -> None:
    model, x = network().to(memory_format=layout).train(), image(2, 1, 32, 48).to(memory_format=layout)
    with torch.no_grad():
        main = model(x)[:, :1]
        decoded = model.decoder(model.encoder(x))
        torch.testing.assert_close(main, model.out(model.fusion(decoded)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("dropout", "forms_map"), [(0.0, False), (0.2, True)])
def test_rearranged_evaluation_is_evaluation(dropout: float, forms_map: bool) -> None:
    """Without the fused map, unless channels of it may be dropped."""
    model, x, formed = network(dropout=dropout).eval(), image(2, 1, 32, 48), []
    expected = model(x)
    model.fusion.register_forward_hook(lambda *call: formed.append(call))
    model.rearranged = True
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-10)
    assert bool(formed) is forms_map


def test_upsampling_channels_last_is_the_transposed_convolution() -> None:
    up = network().decoder.ups[2].up.train()
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        coarse = image(2, 16, 4, 3).to(memory_format=layout).requires_grad_()
        fine = up(coarse)
        results.append((fine, *torch.autograd.grad(fine.square().sum(), [coarse, *up.parameters()])))
        assert fine.is_contiguous(memory_format=layout)
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-10)
    assert torch.equal(torch.nn.functional.conv_transpose2d(coarse, up.weight, up.bias, stride=2), up.eval()(coarse))


def test_bilinear_upsampling_interpolates_and_then_projects(
    numpy_upsample: Callable[..., np.ndarray], numpy_conv: Callable[..., np.ndarray]
) -> None:
    """Section 4.4 of the paper; the order of the two linear steps is free,
    so the oracle has the paper's."""
    model, coarse = network(upsampling="bilinear"), image(2, 16, 4, 3)
    up = model.decoder.ups[2].up
    with torch.no_grad():
        found = up(coarse).numpy()
    weight, bias = (value.detach().numpy() for value in up.parameters())
    assert weight.shape == (8, 16, 1, 1)
    np.testing.assert_allclose(found, numpy_conv(numpy_upsample(coarse.numpy(), (8, 6)), weight, bias), atol=1e-12)


@pytest.mark.parametrize(("level", "before", "after"), [(0, 512, 256), (1, 256, 128), (2, 128, 64), (3, 64, 32)])
def test_upsampling_has_the_same_channels_either_way(level: int, before: int, after: int) -> None:
    for name, kernel in (("transposed", 4), ("bilinear", 1)):
        up = meta_network(upsampling=name).decoder.ups[level].up
        assert up(torch.empty(1, before, 2, 3, device="meta")).shape == (1, after, 4, 6)
        assert sum(p.numel() for p in up.parameters()) == kernel * before * after + after


def test_bilinear_has_a_quarter_of_the_upsampling_weights() -> None:
    whole, bilinear = (sum(p.numel() for p in meta_network(upsampling=name).parameters()) for name in UPSAMPLINGS)
    assert whole == 29_189_355
    assert whole - bilinear == 3 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 32)


def test_the_default_keeps_the_keys_of_earlier_weights() -> None:
    default, bilinear = (set(meta_network(**one).state_dict()) for one in ({}, {"upsampling": "bilinear"}))
    names = {f"decoder.ups.{level}.up" for level in range(4)}
    assert default - bilinear == {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}
    assert bilinear - default == {f"{name}.0.{kind}" for name in names for kind in ("weight", "bias")}
    shipped = torch.load(BUNDLE / "models/model.pt", weights_only=True)
    assert default == set(shipped)


def test_attention_is_the_default_fusion() -> None:
    kinds = [m for m in meta_network(base_width=8).modules() if isinstance(m, AttentionFusion)]
    assert [gate.weight.shape for gate in kinds[0].gates] == [(1, 8, 3, 3)] * 5
    assert len(kinds) == 1
