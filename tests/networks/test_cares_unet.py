"""CARes-UNet: its contract, its size,
and its layers against the table of the paper in plain functions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets.resnet import ResNetBlock
from torch import Tensor, nn

from scripts.networks.cares_unet import CARAFE, CAResUNet
from scripts.networks.registry import create_network
from tests.networks.shared import image, reload, slopes


def meta_network(**arguments: Any) -> CAResUNet:
    """A network without storage: counts and shapes cost nothing."""
    with torch.device("meta"):
        return CAResUNet(**arguments)


def network(seed: int = 0, base_width: int = 4, **arguments: Any) -> CAResUNet:
    """A narrow network in float64 that has seen one batch,
    so that its norms have statistics of their own."""
    torch.manual_seed(seed)
    model = CAResUNet(base_width=base_width, **arguments).double().train()
    with torch.no_grad():
        model(image(2, model.first[0].conv.in_channels, 32, 32, seed=seed))
    return model


# --------------------------------------------------------------------------------------------- size


def test_parameters_of_the_paper() -> None:
    """The published code has 56,518,418, of which 2,100,864 lie in shortcuts that it never uses."""
    model = meta_network()
    assert sum(p.numel() for p in model.parameters()) == 56_518_418 - 2_100_864 == 54_417_554


def test_the_published_dead_shortcuts_are_not_there() -> None:
    """Published, each of the 13 residual blocks has a 1x1 convolution (c * c) and norm (2 * c)
    beside its identity."""
    model = meta_network()
    widths = [block.conv1.in_channels for block in model.modules() if isinstance(block, ResNetBlock)]
    assert sorted(widths) == [64] * 3 + [128] * 3 + [256] * 3 + [512] * 3 + [1024]
    assert sum(c * c + 2 * c for c in widths) == 2_100_864
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    assert sorted(name.split(".")[-1] for name in names) == ["compress"] * 4 + ["out"] + ["project"] * 4


def test_ablation_without_shortcuts_has_the_same_layers() -> None:
    """Only the sums around the shortcuts are gone."""
    whole, plain = network(), network(residual=False)
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in whole.parameters())
    assert not any(isinstance(module, ResNetBlock) for module in plain.modules())
    with torch.no_grad():
        for one, other in zip(plain.state_dict().values(), whole.state_dict().values(), strict=True):
            one.copy_(other)
    x = image(1, 1, 32, 32)
    assert not torch.allclose(plain.eval()(x), whole.eval()(x))
    block = plain.first[1].eval()
    features = torch.rand(1, 4, 8, 8, dtype=torch.float64)
    twin = whole.first[1].eval()
    inner = F.relu(twin.bn1(twin.conv1(features)))
    torch.testing.assert_close(block(features), F.relu(twin.bn2(twin.conv2(inner))))


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
def test_ablation_without_carafe(upsampling: str) -> None:
    model = network(upsampling=upsampling).eval()
    assert not any(isinstance(module, CARAFE) for module in model.modules())
    assert model(image(2, 1, 32, 48)).shape == (2, 1, 32, 48)
    with pytest.raises(ValueError, match="upsampling is 'nearest'; expected: carafe, transposed, bilinear"):
        CAResUNet(upsampling="nearest")


def test_a_narrow_network_compresses_to_no_more_channels_than_it_has() -> None:
    compressed = [m.compress.out_channels for m in meta_network(base_width=16).modules() if isinstance(m, CARAFE)]
    assert compressed == [64, 64, 64, 32]
    assert [m.compress.out_channels for m in meta_network().modules() if isinstance(m, CARAFE)] == [64] * 4


# ------------------------------------------------------------------------------------------- layers


def convolved(state: Mapping[str, Tensor], conv: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
    """3x3 convolution without bias, batch norm with the running statistics."""
    assert f"{conv}.bias" not in state
    x = F.conv2d(x, state[f"{conv}.weight"], padding=1, stride=stride)
    mean, variance = (state[f"{norm}.running_{name}"].view(1, -1, 1, 1) for name in ("mean", "var"))
    scale, shift = (state[f"{norm}.{name}"].view(1, -1, 1, 1) for name in ("weight", "bias"))
    return (x - mean) / torch.sqrt(variance + 1e-5) * scale + shift


def block(state: Mapping[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    x = torch.relu(convolved(state, f"{name}.0.conv", f"{name}.0.adn.N", x, stride))
    inner = torch.relu(convolved(state, f"{name}.1.conv1", f"{name}.1.bn1", x))
    return torch.relu(x + convolved(state, f"{name}.1.conv2", f"{name}.1.bn2", inner))


def test_layers_are_those_of_the_table() -> None:
    model = network().eval()
    generator = torch.Generator().manual_seed(3)
    for name, value in model.state_dict().items():  # no norm is near the identity
        if "running_var" in name or ((".N." in name or ".bn" in name) and name.endswith("weight")):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif "running_mean" in name:
            value.copy_(torch.randn(value.shape, generator=generator))
    state, x = model.state_dict(), image(2, 1, 32, 48)
    levels = [block(state, "first", x)]
    for level in range(4):
        down = block(state, f"stages.{level}.0", levels[-1], stride=2)
        assert down.shape[1] == levels[-1].shape[1]
        levels.append(block(state, f"stages.{level}.1", down))
    assert [level.shape[1:] for level in levels] == [(4 * 2**i, 32 // 2**i, 48 // 2**i) for i in range(5)]
    decoded = levels[4]
    for index, skip in enumerate(reversed(levels[:4])):
        up = model.ups[index].up(decoded)
        assert up.shape == skip.shape
        decoded = block(state, f"ups.{index}.body", torch.cat([skip, up], dim=1))
    maps = F.conv2d(decoded, state["out.weight"], state["out.bias"])
    torch.testing.assert_close(model.class_logits(x), maps, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model(x), maps[:, 1:] - maps[:, :1], rtol=1e-10, atol=1e-10)


def test_the_logit_is_that_of_the_softmax() -> None:
    model, x = network().eval(), image(2, 1, 32, 32)
    with torch.no_grad():
        model.out.weight.mul_(20)
        maps = model.class_logits(x)
        probability = torch.sigmoid(model(x))
    assert maps.shape == (2, 2, 32, 32)
    torch.testing.assert_close(probability, maps.softmax(dim=1)[:, 1:], rtol=1e-12, atol=1e-12)
    assert torch.equal(probability > 0.5, maps.argmax(dim=1, keepdim=True) == 1)


def test_probabilities_are_not_squeezed() -> None:
    """The published sigmoid before the softmax keeps every probability within [0.269, 0.731];
    its mask is ours."""
    model, x = network().eval(), image(1, 1, 32, 32)
    with torch.no_grad():
        model.out.weight.mul_(500)
        model.out.bias[1] -= model(x).median()  # half of the image is lesion
        maps = model.class_logits(x)
        probability = torch.sigmoid(model(x))
    published = torch.sigmoid(maps).softmax(dim=1)[:, 1:]
    assert 0.268 < published.min() < published.max() < 0.732
    assert probability.min() < 0.01
    assert probability.max() > 0.99
    ours, theirs = probability > 0.5, published > 0.5
    assert ((ours == theirs) | (published == 0.5)).all()  # 0.5 where both sigmoids are 0 or 1 to the last digit
    assert ours.double().mean().item() == pytest.approx(0.5, abs=0.01)


# ----------------------------------------------------------------------------------------- contract


@pytest.mark.parametrize("channels", [1, 3])
def test_output_is_one_map_in_both_modes(channels: int) -> None:
    model = meta_network(base_width=4, in_channels=channels)
    x = torch.empty(2, channels, 48, 32, device="meta")
    assert model.train()(x).shape == model.eval()(x).shape == (2, 1, 48, 32)
    assert (model.edge_heads, model.mask_heads, model.size_multiple, model.deep_supervision) == (0, 0, 16, False)


def test_output_is_logits() -> None:
    model = network().eval()
    with torch.no_grad():
        model.out.weight.zero_()
        model.out.bias.copy_(torch.tensor([4.0, -8.5]))
        assert torch.equal(model(image(1, 1, 32, 32)), torch.full((1, 1, 32, 32), -12.5, dtype=torch.float64))


def test_smallest_image() -> None:
    assert network().eval()(image(1, 1, 16, 16)).isfinite().all()


@pytest.mark.parametrize("size", [(40, 64), (64, 40), (17, 16), (8, 16)])
def test_size_that_is_no_multiple_of_16_is_refused(size: tuple[int, int]) -> None:
    for mode in (True, False):
        with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} pixels; expected: multiples of 16"):
            meta_network(base_width=4).train(mode)(torch.empty(2, 1, *size, device="meta"))


@pytest.mark.parametrize("arguments", [{"base_width": 0}, {"base_width": -4}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_bad_argument_is_refused(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(ValueError, match=f"^{name} is .*expected"):
        meta_network(**{"base_width": 4, **arguments})


def test_the_registry_knows_it() -> None:
    model = create_network("cares_unet", in_channels=1, base_width=4, dropout=0.0)
    assert isinstance(model, CAResUNet)
    assert model.spec == {"name": "cares_unet", "arguments": {"in_channels": 1, "base_width": 4, "dropout": 0.0}}


def test_every_parameter_is_trained() -> None:
    """The published network has 2.1 M parameters without gradient."""
    model = network().train()
    (model(image(2, 1, 32, 32)) * image(2, 1, 32, 32, seed=6)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_gradient_is_the_derivative() -> None:
    """Along a random direction of all parameters: nothing is cut off."""
    model, x, weight = network().train(), image(2, 1, 32, 32), image(2, 1, 32, 32, seed=6)
    slope, difference = slopes(model, x, weight, 1e-6)
    assert slope == pytest.approx(difference, rel=1e-4)


def test_dropout_drops_channels_of_the_last_map_in_training_only() -> None:
    model, x = network(dropout=0.5), image(2, 1, 32, 32)
    kept: list[Tensor] = []
    model.out.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    assert not torch.equal(model.train()(x), model(x))
    assert any((channel == 0).all() for channel in kept[0].flatten(0, 1))
    plain = network(seed=1)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain.eval()(x), model.eval()(x))


# ------------------------------------------------------------------------------ prediction and
# saving


def test_prediction_does_not_depend_on_the_batch() -> None:
    model, x = network().eval(), image(3, 1, 32, 32)
    whole = model(x)
    for i in range(3):
        torch.testing.assert_close(model(x[i : i + 1]), whole[i : i + 1], rtol=1e-10, atol=1e-10)


def test_saved_weights_predict_the_same() -> None:
    first, second, x = network(seed=0), network(seed=1), image(2, 1, 32, 32)
    assert not torch.equal(first.eval()(x), second.eval()(x))
    reload(first, second)
    assert torch.equal(first.eval()(x), second.eval()(x))


def test_channels_last_predicts_and_learns_the_same() -> None:
    model, x = network(), image(2, 1, 32, 48)
    weight = image(2, 1, 32, 48, seed=6)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model = model.to(memory_format=layout).train()
        out = model(x.contiguous(memory_format=layout))
        results.append([out, *torch.autograd.grad((out * weight).sum(), list(model.parameters()))])
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("training", [False, True])
def test_torchscript_is_eager(training: bool) -> None:
    model, x = network(), image(2, 1, 32, 48)
    scripted = torch.jit.script(model)
    for _ in range(3):  # the first runs are profiled, later ones optimised
        values = [module.train(training)(x) for module in (scripted, model)]
        torch.testing.assert_close(*values, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(value.square().sum(), list(model.parameters())) for value in values]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_onnx_predicts_the_same(dynamo: bool, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    model, x = network().float().eval(), image(2, 1, 32, 48, dtype=torch.float32)
    path = tmp_path / "model.onnx"
    torch.onnx.export(model, (x,), path, opset_version=18, dynamo=dynamo, verbose=False)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (exported,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(exported), model(x).detach(), rtol=1e-4, atol=1e-5)
