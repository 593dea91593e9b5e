"""The multi-class U-Net: the published count, its map by the formula,
and what a network of the bundle promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scripts.networks.infnet.mc_unet import MultiClassUNet
from scripts.networks.registry import create_network
from tests.networks.shared import image


def meta_network(**arguments: Any) -> MultiClassUNet:
    with torch.device("meta"):
        return MultiClassUNet(**arguments)


def network(seed: int = 0, base_width: int = 4, **arguments: Any) -> MultiClassUNet:
    """A narrow network in float64 whose norms are no identities."""
    torch.manual_seed(seed)
    model = MultiClassUNet(base_width=base_width, **arguments).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean):
                nn.init.uniform_(value, 0.25, 1)
    return model


def test_parameters_are_the_published_ones() -> None:
    model = meta_network()
    assert sum(p.numel() for p in model.parameters()) == 17_269_251
    # 1,728 = 64 * 3 * 9 less with three channels: 17,267,523.
    assert sum(p.numel() for p in meta_network(in_channels=3).parameters()) == 17_269_251 - 1_728


def by_formula(model: MultiClassUNet, x: torch.Tensor) -> torch.Tensor:
    """Written from the figure, with a list of the convolutions in the order in which they act."""
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [tuple(c.weight.shape[:2]) for c in convolutions] == [
        *((4, 6), (4, 4), (8, 4), (8, 8), (16, 8), (16, 16), (32, 16), (32, 32), (32, 32), (32, 32)),
        *((32, 64), (16, 32), (16, 32), (8, 16), (8, 16), (4, 8), (4, 8), (4, 4), (3, 4)),
    ]
    steps = iter(zip(convolutions, norms, strict=False))

    def double(y: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            conv, norm = next(steps)
            y = F.conv2d(y, conv.weight, conv.bias, padding=1)
            mean, var = norm.running_mean.view(-1, 1, 1), norm.running_var.view(-1, 1, 1)
            y = (y - mean) / (var + 1e-5).sqrt() * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
            y = y.clamp(min=0)
        return y

    levels = [double(x)]
    for _ in range(4):
        levels.append(double(F.max_pool2d(levels[-1], 2)))
    y = levels.pop()
    while levels:
        up = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)
        y = double(torch.cat([levels.pop(), up], dim=1))
    return F.conv2d(y, model.out.weight, model.out.bias)


def test_map_is_the_formulas() -> None:
    """Image and prior are three channels each: 3 + 3, not mixed."""
    model, x = network().eval(), image(2, 2, 48, 32)
    six = torch.stack([x[:, channel] for channel in (0, 0, 0, 1, 1, 1)], dim=1)
    with torch.no_grad():
        expected = by_formula(model, six)
        assert expected.std() > 1e-3
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
        six_channels = network(in_channels=6).eval()
        six_channels.load_state_dict(model.state_dict())
        assert torch.equal(six_channels(six), model(x))


def test_contract() -> None:
    model = meta_network(base_width=4)
    assert (model.edge_heads, model.mask_heads, model.size_multiple, model.deep_supervision) == (0, 0, 16, False)
    for mode in (True, False):
        assert model.train(mode)(torch.empty(2, 2, 48, 32, device="meta")).shape == (2, 3, 48, 32)
        with pytest.raises(ValueError, match="40 x 32 pixels"):
            model(torch.empty(2, 2, 40, 32, device="meta"))
    assert isinstance(create_network("mc_unet", base_width=4), MultiClassUNet)


@pytest.mark.parametrize("arguments", [{"base_width": 6}, {"base_width": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_bad_argument_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(arguments))} is .*; expected"):
        meta_network(**arguments)


def test_every_parameter_is_trained() -> None:
    model = network().train()
    logits = model(image(2, 2, 32, 32))
    (logits * image(*logits.shape, seed=6)).sum().backward()
    # A bias before a batch norm in training mode cancels; every other parameter must move.
    idle = {id(m[0].bias) for m in model.modules() if isinstance(m, nn.Sequential) and isinstance(m[0], nn.Conv2d)}
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert [name for name, p in model.named_parameters() if id(p) not in idle and not p.grad.any()] == []


def test_dropout_acts_in_training_only() -> None:
    model, x = network(dropout=0.5), image(2, 2, 32, 32)
    assert not torch.equal(model.train()(x), model.train()(x))
    assert torch.equal(model.eval()(x), model.eval()(x))


def test_torchscript_and_onnx_are_eager(tmp_path: Path) -> None:
    model, x = network().float().eval(), image(2, 2, 32, 48, dtype=torch.float32)
    expected = model(x).detach()
    torch.testing.assert_close(torch.jit.script(model)(x), expected, rtol=1e-4, atol=1e-5)
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.onnx.export(model, (x,), tmp_path / "model.onnx", opset_version=18, input_names=["image"], verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"image": x.numpy()})[0], expected.numpy(), rtol=1e-3, atol=1e-4)
