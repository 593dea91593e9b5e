"""Inf-Net: the published counts, its maps by the formula,
and what a network of the bundle promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scripts.losses.structure import InfNetLoss
from scripts.networks.infnet.infnet import ConvNorm, InfNet, ReceptiveFieldBlock
from scripts.networks.registry import create_network
from tests.networks.shared import image, reload

Upsample = Callable[[np.ndarray, tuple[int, int]], np.ndarray]
State = dict[str, torch.Tensor]


def meta_network(**arguments: Any) -> InfNet:
    with torch.device("meta"):
        return InfNet(**arguments)


def network(seed: int = 0, base_width: int = 8, **arguments: Any) -> InfNet:
    """A narrow network in float64 whose norms are no identities."""
    torch.manual_seed(seed)
    model = InfNet(base_width=base_width, **arguments).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean):
                nn.init.uniform_(value, 0.25, 1)
            nn.init.uniform_(module.running_var, 1, 2)
    return model


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


# ------------------------------------------------------------------------------------------- counts


def test_parameters_are_the_published_ones_part_by_part() -> None:
    model = meta_network()
    assert count(model.receptive_3, model.receptive_4, model.receptive_5) == 862_016
    assert count(model.decoder) == 277_473
    assert count(model.attention_5) == 5_851_394
    assert count(model.attention_4) == 177_090
    assert count(model.attention_3) == 144_322
    assert count(model.edge, model.edge_out) == 91_074


def test_the_published_total_counts_a_classifier_that_is_not_there() -> None:
    """33.122 M in the paper, with 2048 * 1000 + 1000 parameters that no map depends on."""
    model = meta_network()
    assert count(model) == 33_121_721 - 2_049_000 == 31_072_721
    assert not any("fc" in name for name, _ in model.named_parameters())


def rest_by_hand(channels: tuple[int, int, int, int]) -> int:
    """All but the backbone, whose features f_2 ... f_5 have these channels."""

    def bc(before: int, after: int, taps: int) -> int:
        return before * after * taps + 2 * after

    c2, c3, c4, c5 = channels
    receptive = sum(
        5 * bc(c, 32, 1) + sum(2 * bc(32, 32, k) + bc(32, 32, 9) for k in (3, 5, 7)) + bc(128, 32, 9)
        for c in channels[1:]
    )
    decoder = 4 * bc(32, 32, 9) + 2 * bc(64, 64, 9) + 2 * bc(96, 96, 9) + 96 + 1
    edge = bc(c2, 64, 1) + 2 * bc(64, 64, 9) + bc(64, 1, 9)
    fifth = bc(c5, 256, 1) + bc(320, 256, 25) + 2 * bc(256, 256, 25) + bc(256, 1, 1)
    others = sum(bc(c, 64, 1) + bc(128, 64, 9) + bc(64, 64, 9) + bc(64, 1, 9) for c in (c3, c4))
    return receptive + decoder + edge + fifth + others


@pytest.mark.parametrize(
    ("backbone", "own", "channels"),
    [
        ("res2net50", 23_669_352, (256, 512, 1024, 2048)),
        ("resnet50", 25_557_032 - 2_049_000, (256, 512, 1024, 2048)),
        ("vgg16", 14_714_688, (128, 256, 512, 512)),
    ],
)
def test_parameters_with_each_backbone(backbone: str, own: int, channels: tuple[int, int, int, int]) -> None:
    model = meta_network(backbone=backbone)
    assert count(model.backbone) == own
    assert count(model) == own + rest_by_hand(channels)
    assert f"{count(model):,}" in (InfNet.__doc__ or "")


def test_features_of_vgg_are_those_of_its_last_four_stages() -> None:
    """Without normalisation, at a half to a sixteenth of the size."""
    model = meta_network(backbone="vgg16", base_width=8)
    features = model.backbone(torch.empty(1, 3, 64, 96, device="meta"))
    assert [tuple(one.shape[1:]) for one in features[-4:]] == [(16, 32, 48), (32, 16, 24), (64, 8, 12), (64, 4, 6)]
    layers = [type(module) for stage in model.backbone.stages for module in stage]
    assert (layers.count(nn.Conv2d), layers.count(nn.ReLU), len(layers)) == (13, 13, 26)


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16"])
def test_every_backbone_keeps_the_contract(backbone: str) -> None:
    model, x = network(base_width=4, backbone=backbone), image(2, 1, 64, 96)
    with torch.no_grad():
        scripted = torch.jit.script(model)
        for mode, channels in ((True, 5), (False, 1)):
            maps = model.train(mode)(x)
            assert maps.shape == (2, channels, 64, 96)
            torch.testing.assert_close(scripted.train(mode)(x), maps, rtol=1e-9, atol=1e-9)
    model.train()(x).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match="backbone is 'vgg19'; expected: res2net50, resnet50, vgg16"):
        meta_network(backbone="vgg19")


def test_quarter_width() -> None:
    assert count(meta_network(base_width=16)) == pytest.approx(31_072_721 / 16, rel=0.02)


# ------------------------------------------------------------------------------------ the formula


def convolved(x: torch.Tensor, state: State, name: str, dilation: int = 1) -> torch.Tensor:
    """Convolution and normalisation by the running figures, no activation."""
    weight = state[f"{name}.0.weight"]
    reach = [dilation * (k // 2) for k in weight.shape[2:]]
    y = F.conv2d(x, weight, padding=reach, dilation=dilation)
    scale, bias, mean, var = (
        state[f"{name}.1.{entry}"].view(-1, 1, 1) for entry in ("weight", "bias", "running_mean", "running_var")
    )
    return (y - mean) / (var + 1e-5).sqrt() * scale + bias


def receptive_field(x: torch.Tensor, state: State, name: str) -> torch.Tensor:
    branches = [convolved(x, state, f"{name}.branches.0")]
    for index, kernel in enumerate((3, 5, 7), start=1):
        y = x
        for step in range(3):
            y = convolved(y, state, f"{name}.branches.{index}.{step}")
        branches.append(convolved(y, state, f"{name}.branches.{index}.3", dilation=kernel))
    merged = convolved(torch.cat(branches, dim=1), state, f"{name}.merge")
    return (merged + convolved(x, state, f"{name}.shortcut")).relu()


def corner_up(x: torch.Tensor) -> torch.Tensor:
    """Doubles height and width, corners on corners:
    output k of 2n lies at k * (n - 1) / (2n - 1)."""

    def matrix(n: int) -> torch.Tensor:
        out = torch.zeros(2 * n, n, dtype=x.dtype)
        for k in range(2 * n):
            position = k * (n - 1) / (2 * n - 1)
            low = min(int(position), n - 1)
            out[k, low] += 1 - (position - low)
            out[k, min(low + 1, n - 1)] += position - low
        return out

    return torch.einsum("ih,bchw,jw->bcij", matrix(x.shape[2]), x, matrix(x.shape[3]))


def decoded(r3: torch.Tensor, r4: torch.Tensor, r5: torch.Tensor, state: State) -> torch.Tensor:
    a = convolved(corner_up(r5), state, "decoder.gate_5_on_4") * r4
    b = convolved(corner_up(corner_up(r5)), state, "decoder.gate_5_on_3")
    b = b * convolved(corner_up(r4), state, "decoder.gate_4_on_3") * r3
    d = convolved(torch.cat([a, convolved(corner_up(r5), state, "decoder.pass_5")], 1), state, "decoder.merge_4")
    e = convolved(torch.cat([b, convolved(corner_up(d), state, "decoder.pass_4")], 1), state, "decoder.merge_3")
    e = convolved(e, state, "decoder.out.0")
    return F.conv2d(e, state["decoder.out.1.weight"], state["decoder.out.1.bias"])


def maps_by_formula(model: InfNet, x: torch.Tensor, resize: Upsample) -> list[torch.Tensor]:
    """S_3, S_e, S_g, S_5, S_4 at full size, from the backbone's features on."""
    state = model.state_dict()

    def resized(y: torch.Tensor, size: torch.Size) -> torch.Tensor:
        return torch.from_numpy(resize(y.numpy(), (size[2], size[3])))

    f2, f3, f4, f5 = model.backbone(torch.cat([x, x, x], dim=1))
    s_g = decoded(*(receptive_field(f, state, f"receptive_{k}") for k, f in ((3, f3), (4, f4), (5, f5))), state)
    edge = f2
    for step in range(3):
        edge = convolved(edge, state, f"edge.{step}")
    found, prior = {}, s_g
    for k, f, depth in ((5, f5, 3), (4, f4, 2), (3, f3, 2)):
        prior = resized(prior, f.shape)
        attention = 1 - 1 / (1 + torch.exp(-prior))
        q = convolved(f * attention, state, f"attention_{k}.reduce")
        q = torch.cat([q, resized(edge, f.shape)], dim=1)
        for step in range(depth):
            q = convolved(q, state, f"attention_{k}.body.{2 * step}").relu()
        prior = convolved(q, state, f"attention_{k}.out") + prior
        found[k] = prior
    s_e = convolved(edge, state, "edge_out")
    return [resized(s, x.shape) for s in (found[3], s_e, s_g, found[5], found[4])]


def test_maps_are_the_formulas(numpy_upsample: Upsample) -> None:
    model, x = network().eval(), image(2, 1, 64, 96)
    with torch.no_grad():
        expected = maps_by_formula(model, x, numpy_upsample)
        main = model(x)
        # Training mode's channels, with the norms left as in evaluation.
        model.training = True
        maps = model(x)
    assert maps.shape == (2, 5, 64, 96)
    for index, one in enumerate(expected):
        assert one.std() > 1e-3
        torch.testing.assert_close(maps[:, index : index + 1], one, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(main, expected[0], rtol=1e-8, atol=1e-8)


def test_reach_of_the_receptive_field_block() -> None:
    """The widest branch sees 7 + 2 * 7 = 21 pixels, the merging convolution 2 more."""
    torch.manual_seed(0)
    module = ReceptiveFieldBlock(2, 2).double().eval()
    x = torch.ones(1, 2, 31, 31, dtype=torch.float64, requires_grad=True)
    module(x)[0, :, 15, 15].sum().backward()
    seen = x.grad.abs().sum(dim=(0, 1)) > 0
    assert (int(seen.any(dim=0).sum()), int(seen.any(dim=1).sum())) == (23, 23)


def test_outputs_of_edge_and_reverse_attention_pass_a_norm() -> None:
    """As in the published network: what is added to the prior is normalised over the batch."""
    model = meta_network(base_width=8)
    for out in (model.edge_out, model.attention_5.out, model.attention_4.out, model.attention_3.out):
        assert isinstance(out, ConvNorm)
        assert isinstance(out[-1], nn.BatchNorm2d)
        assert out[-1].num_features == 1


# ------------------------------------------------------------------------------------------
# contract


def test_output_shape_by_mode() -> None:
    for arguments, channels in (({}, 5), ({"deep_supervision": False}, 1), ({"in_channels": 3}, 5)):
        model = meta_network(base_width=8, **arguments)
        x = torch.empty(2, arguments.get("in_channels", 1), 96, 64, device="meta")
        assert model.train()(x).shape == (2, channels, 96, 64)
        assert model.eval()(x).shape == (2, 1, 96, 64)
    assert (model.edge_heads, model.mask_heads, model.size_multiple) == (1, 3, 32)


def test_one_channel_is_repeated_to_three() -> None:
    grey, colour, x = network().eval(), network(in_channels=3).eval(), image(1, 1, 32, 32)
    colour.load_state_dict(grey.state_dict())
    torch.testing.assert_close(grey(x), colour(torch.cat([x, x, x], dim=1)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (16, 32)])
def test_size_that_is_no_multiple_of_32_is_refused(size: tuple[int, int]) -> None:
    for mode in (True, False):
        with pytest.raises(ValueError, match=rf"{size[0]} x {size[1]} pixels; expected: multiples of 32"):
            meta_network(base_width=8).train(mode)(torch.empty(2, 1, *size, device="meta"))


@pytest.mark.parametrize(
    "arguments", [{"base_width": 6}, {"base_width": 0}, {"base_width": -4}, {"dropout": 1.0}, {"dropout": -0.1}]
)
def test_bad_argument_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(arguments))} is .*; expected"):
        meta_network(**arguments)


def test_every_parameter_is_trained() -> None:
    model = network().train()
    logits = model(image(2, 1, 64, 64))
    (logits * image(*logits.shape, seed=6)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_main_map_alone_trains_all_but_the_edge_head() -> None:
    model = network(deep_supervision=False).train()
    (model(image(2, 1, 64, 64)) * image(2, 1, 64, 64, seed=6)).sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is None} == {
        "edge_out.0.weight",
        "edge_out.1.weight",
        "edge_out.1.bias",
    }


def test_dropout_acts_in_training_and_on_the_main_map_only() -> None:
    model, x = network(dropout=0.5), image(2, 1, 64, 64)
    first, second = (model.train()(x) for _ in range(2))
    assert not torch.equal(first[:, :1], second[:, :1])
    assert torch.equal(first[:, 1:], second[:, 1:])
    plain = network(seed=1)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain.eval()(x), model.eval()(x))


def test_saved_weights_predict_the_same_with_and_without_heads() -> None:
    first, second, x = network(), network(seed=1, deep_supervision=False), image(2, 1, 32, 64)
    reload(first, second)
    assert torch.equal(first.eval()(x), second.eval()(x))
    with torch.no_grad():
        torch.testing.assert_close(second.train()(x), first.train()(x)[:, :1], rtol=1e-12, atol=1e-12)


def test_torchscript_is_eager() -> None:
    model, x = network(base_width=4), image(2, 1, 64, 32)
    scripted = torch.jit.script(model)
    with torch.no_grad():
        torch.testing.assert_close(scripted.eval()(x), model.eval()(x), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(scripted.train()(x), model.train()(x), rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_onnx_is_eager(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x = network(base_width=4).float().eval(), image(2, 1, 64, 32, dtype=torch.float32)
    torch.onnx.export(model, (x,), tmp_path / "model.onnx", opset_version=18, input_names=["image"], verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": x.numpy()})[0]
    np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-3, atol=1e-4)


def test_the_registry_knows_it() -> None:
    model = create_network("infnet", base_width=4)
    assert isinstance(model, InfNet)
    assert model.spec == {"name": "infnet", "arguments": {"base_width": 4}}


def test_twenty_steps_lower_the_loss() -> None:
    """A quarter of the width on discs in noise; the loss is that of Inf-Net."""
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    centres = torch.randint(16, 48, (4, 2, 1, 1)).float()
    mask = ((y - centres[:, :1]) ** 2 + (x - centres[:, 1:]) ** 2 < 12**2).float()
    edge = mask - (-F.max_pool2d(-mask, 3, 1, 1))
    label, scans = torch.cat([mask, edge], dim=1), mask + 0.5 * torch.randn(4, 1, 64, 64)
    model, loss = InfNet(base_width=16).train(), InfNetLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        value = loss(model(scans), label)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
