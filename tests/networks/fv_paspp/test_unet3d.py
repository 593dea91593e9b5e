"""What the 3-D network promises to training and deployment."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scripts.networks.fv_paspp.blocks3d import FeatureVariation, ProgressiveASPP
from scripts.networks.fv_paspp.unet3d import FvPasppUNet3d
from scripts.networks.registry import create_network
from tests.networks.shared import reload

PLAIN: dict[str, Any] = {"variation": "none", "paspp": False, "heads": 0}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"variation": "ce"},
    PLAIN,
    {**PLAIN, "variation": "se"},
    {**PLAIN, "heads": 3},
    {"in_channels": 2, "out_channels": 3},
]


def network(seed: int = 0, base_width: int = 2, **arguments: Any) -> FvPasppUNet3d:
    """A narrow network in float64 that has seen one batch."""
    torch.manual_seed(seed)
    model = FvPasppUNet3d(base_width=base_width, **arguments).double().train()
    with torch.no_grad():
        model(volume(2, arguments.get("in_channels", 1), 32, 32, 4, seed=seed))
    return model


def volume(*shape: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        (PLAIN, 21_884_897),
        ({**PLAIN, "variation": "se"}, 33_674_241),
        ({**PLAIN, "variation": "ce"}, 33_631_012),
        ({"heads": 0}, 36_104_193),
        ({}, 36_104_387),
        ({"heads": 3}, 36_104_387 + 256 + 1),
    ],
)
def test_parameters(arguments: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in create_network("fv_paspp_unet3d", **arguments).parameters()) == parameters


@pytest.mark.parametrize("variant", VARIANTS)
def test_output_shape_by_mode(variant: dict[str, Any]) -> None:
    out, heads = variant.get("out_channels", 1), variant.get("heads", 2)
    with torch.device("meta"):
        model = FvPasppUNet3d(base_width=2, **variant)
        x = torch.empty(2, variant.get("in_channels", 1), 48, 32, 5)
        assert model.train()(x).shape == (2, out + heads, 48, 32, 5)
        assert model.eval()(x).shape == (2, out, 48, 32, 5)
        assert FvPasppUNet3d(base_width=2, deep_supervision=False, **variant).train()(x).shape == model.eval()(x).shape
    assert (model.edge_heads, model.mask_heads) == (0, heads)


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_any_number_of_slices(depth: int) -> None:
    assert network().eval()(volume(1, 1, 16, 16, depth)).isfinite().all()


@pytest.mark.parametrize("size", [(24, 32), (32, 24), (8, 16)])
def test_size_that_is_no_multiple_of_16_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} pixels; expected: multiples of 16"):
        network()(volume(2, 1, *size, 4))


@pytest.mark.parametrize(
    "arguments",
    [{"base_width": 0}, {"variation": "cbam"}, {"variation": ""}, {"dropout": 1.0}, {"dropout": -0.1}, {"heads": 4}],
)
def test_bad_argument_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        FvPasppUNet3d(**{"base_width": 2, **arguments})


@pytest.mark.parametrize(("before", "now"), [(True, 2), (False, 0)])
def test_heads_of_earlier_versions_were_a_switch(before: bool, now: int) -> None:
    with torch.device("meta"):
        shapes = [FvPasppUNet3d(base_width=2, heads=heads).state_dict() for heads in (before, now)]
    assert {key: one.shape for key, one in shapes[0].items()} == {key: one.shape for key, one in shapes[1].items()}


def test_blocks_stand_where_the_paper_draws_them() -> None:
    """FV on 64, 128 and 256 channels at 1/4, 1/8 and 1/16 of the size; PASPP on 512;
    slices keep their number."""
    seen: list[tuple[str, torch.Size]] = []
    with torch.device("meta"):
        model = FvPasppUNet3d()
        for module in model.modules():
            if isinstance(module, FeatureVariation | ProgressiveASPP):
                module.register_forward_hook(lambda m, i, _: seen.append((type(m).__name__, i[0].shape[1:])))
        model(torch.empty(1, 1, 128, 128, 8))
    assert seen == [
        ("FeatureVariation", (64, 32, 32, 8)),
        ("FeatureVariation", (128, 16, 16, 8)),
        ("FeatureVariation", (256, 8, 8, 8)),
        ("ProgressiveASPP", (512, 8, 8, 8)),
    ]


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_heads_resize_their_decoder_level_and_then_reduce_it(heads: int) -> None:
    """The order of the source; the network does it the other way round."""
    model, seen = network(heads=heads).train(), []
    for up in model.up:
        up.register_forward_hook(lambda _m, _i, output: seen.append(output))
    logits = model(volume(2, 1, 32, 32, 4))
    for index, coarse in enumerate(seen[-1 - heads : -1]):  # the last level has the main map
        scale = 32 // coarse.shape[2]
        assert scale == 2 ** (heads - index)
        large = F.interpolate(coarse, scale_factor=(scale, scale, 1), mode="trilinear", align_corners=False)
        head = model.heads[index](large)
        torch.testing.assert_close(logits[:, index + 1 : index + 2], head, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_is_trained(variant: dict[str, Any]) -> None:
    model = network(base_width=4, **variant).train()
    logits = model(volume(2, variant.get("in_channels", 1), 32, 32, 4))
    (logits * volume(*logits.shape, seed=6)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    # A bias before a batch norm in training mode cancels; every other parameter must move.
    layers = [m for m in model.modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d | nn.BatchNorm3d)]
    idle = {id(a.bias) for a, b in pairwise(layers) if isinstance(b, nn.BatchNorm3d)}
    assert [name for name, p in model.named_parameters() if id(p) not in idle and not p.grad.any()] == []


def test_dropout_acts_in_training_only() -> None:
    model, x = network(base_width=8, dropout=0.5), volume(1, 1, 16, 16, 4)
    assert not torch.equal(model.train()(x)[:, 0], model(x)[:, 0])
    assert torch.equal(model.eval()(x), model(x))


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_weights_and_torchscript_predict_the_same(variant: dict[str, Any]) -> None:
    first, second = network(**variant), network(seed=1, **variant)
    x = volume(2, variant.get("in_channels", 1), 32, 48, 3)
    reload(first, second)
    scripted = torch.jit.script(second)
    with torch.no_grad():
        for mode in (False, True):
            torch.testing.assert_close(scripted.train(mode)(x), first.train(mode)(x), rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_onnx_predicts_the_same(tmp_path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x = network().float().eval(), volume(1, 1, 32, 16, 3).float()
    torch.onnx.export(model, (x,), tmp_path / "model.onnx", opset_version=18)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    np.testing.assert_allclose(found, model(x).detach().numpy(), atol=1e-5)
