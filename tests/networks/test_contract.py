"""What every network of the registry promises to training, inference and deployment,
on one table of small examples.

A new network is one line in `CASES`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from scripts.networks.registry import all_networks, create_network
from tests.networks.shared import reload

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Case:
    """A small example of a network.

    Attributes:
        image: shape of one image, (C, H, W) or (C, H, W, D), from which training mode takes even a
            batch of one.
        arguments: what makes it narrow.
        outputs: channels in evaluation mode.
    """

    image: tuple[int, ...] = (1, 64, 96)
    arguments: dict[str, Any] = field(default_factory=lambda: {"base_width": 4})
    outputs: int = 1


CASES = {
    "acfnet": Case(),
    "attention_unet": Case((1, 32, 48)),
    "cares_unet": Case((1, 32, 48)),
    "ce_net": Case((1, 192, 224)),
    "cpfnet": Case(),
    "danet": Case(),
    "deeplabv3plus": Case(),
    "f3net": Case(),
    "fcn8s": Case((1, 64, 96)),
    "fpn": Case(),
    "fv_paspp_unet3d": Case((1, 32, 48, 5)),
    "infnet": Case((1, 256, 288)),
    "linknet": Case(),
    "mc_unet": Case((2, 32, 48), {"base_width": 4, "in_channels": 2, "out_channels": 3}, outputs=3),
    "plain_conv_unet": Case((1, 32, 48), {"base_width": 4, "stages": 4}),
    "pspnet": Case(),
    "resunet": Case((1, 32, 48)),
    "scrn": Case(),
    "segnet": Case(),
    "unet": Case((1, 32, 48)),
    "unet_resnet34": Case(),
    "unetpp": Case((1, 32, 48)),
}
DEEP = [name for name in CASES if "deep_supervision" in signature(all_networks()[name]).parameters]


@pytest.fixture(params=sorted(CASES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def exact_arithmetic() -> Iterator[None]:
    """float64, so that a difference is a mistake and not a rounding error."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def images(name: str, batch: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, *CASES[name].image, generator=torch.Generator().manual_seed(seed))


def network(name: str, seed: int = 0, **arguments: Any) -> nn.Module:
    """A network off its initial values, where zeros may hide a branch,
    whose norms have seen a batch."""
    torch.manual_seed(seed)
    model = create_network(name, **{**CASES[name].arguments, **arguments})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        model.train()(images(name, 3, seed=2))
    return model


def channels(name: str, model: nn.Module) -> int:
    """Channels in training mode."""
    return CASES[name].outputs + (model.edge_heads + model.mask_heads if model.deep_supervision else 0)


def test_every_network_has_a_case() -> None:
    assert sorted(CASES) == sorted(all_networks())


# ----------------------------------------------------------------------------------------------
# output


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_output(name: str, batch: int) -> None:
    model, x = network(name), images(name, batch)
    for mode, expected in ((True, channels(name, model)), (False, CASES[name].outputs)):
        logits = model.train(mode)(x)
        assert logits.shape == (batch, expected, *x.shape[2:])
        assert logits.isfinite().all()
        assert logits.std() > 0


def test_output_is_no_probability(name: str) -> None:
    x = images(name, 1)
    with torch.no_grad():
        logits = torch.stack([network(name, seed).eval()(x) for seed in range(4)])
    assert (logits < 0).any() or (logits > 1).any()


@pytest.mark.parametrize("training", [True, False])
def test_other_sizes_are_handled_or_refused_in_one_line(name: str, training: bool) -> None:
    model, x = network(name).train(training), images(name, 2)
    x = torch.cat([x, x[:, :, :, :1]], dim=3)[:, :, 1:]
    if model.size_multiple == 1:
        assert model(x).shape[2:] == x.shape[2:]
    else:
        with pytest.raises(ValueError, match=r"^(images|slices) are .*; expected: .*$") as refusal:
            model(x)
        assert "\n" not in str(refusal.value)


def test_prediction_is_that_of_the_image_alone(name: str) -> None:
    model, x = network(name).eval(), images(name, 3)
    with torch.no_grad():
        whole = model(x)
        assert torch.equal(whole, model(x))
        others = torch.cat([1e3 * x[2:], x[:1]])
        torch.testing.assert_close(model(others)[1:], whole[:1], rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(model(x[1:2]), whole[1:2], rtol=1e-8, atol=1e-8)


# --------------------------------------------------------------------------------------------
# training


def test_every_parameter_is_trained(name: str) -> None:
    model = network(name).train()
    logits = model(images(name, 2))
    (logits * torch.randn_like(logits)).sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    # A convolution's bias may cancel: in a norm after it, or as the key of an attention.
    biases = {id(m.bias) for m in model.modules() if isinstance(m, CONVOLUTIONS)}
    assert [key for key, p in model.named_parameters() if id(p) not in biases and not p.grad.any()] == []


def test_dropout_acts_in_training_only(name: str) -> None:
    model, x = network(name, dropout=0.5), images(name, 2)
    first, second = model(x), model(x)
    assert not torch.equal(first[:, : CASES[name].outputs], second[:, : CASES[name].outputs])
    plain = network(name, seed=1)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain.eval()(x), model.eval()(x))


@pytest.mark.parametrize("dropout", [-0.1, 1.1])
def test_dropout_out_of_range_is_refused(name: str, dropout: float) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        create_network(name, **{**CASES[name].arguments, "dropout": dropout})


@pytest.mark.parametrize("name", DEEP)
def test_without_deep_supervision_weights_are_the_same(name: str) -> None:
    deep, plain, x = network(name), network(name, seed=1, deep_supervision=False), images(name, 2)
    plain.load_state_dict(deep.state_dict(), strict=True)
    assert torch.equal(plain.eval()(x), deep.eval()(x))
    outputs = CASES[name].outputs
    main = plain.train()(x)
    assert main.shape[1] == outputs
    torch.testing.assert_close(main, deep.train()(x)[:, :outputs], rtol=1e-8, atol=1e-8)


# ------------------------------------------------------------------------------------------
# deployment


def test_torchscript_is_eager(name: str) -> None:
    model, x = network(name), images(name, 2)
    scripted = torch.jit.script(model)
    with torch.no_grad():
        torch.testing.assert_close(scripted.eval()(x), model.eval()(x), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(scripted.train()(x), model.train()(x), rtol=1e-8, atol=1e-8)


@pytest.mark.slow  # ten seconds and more each
def test_onnx_is_eager(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, x = network(name).float().eval(), images(name, 2).float()
    file = tmp_path / "model.onnx"
    torch.onnx.export(model, (x,), file, opset_version=18, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        expected = model(x)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_saved_weights_predict_the_same(name: str) -> None:
    first, second, x = network(name), network(name, seed=1), images(name, 2)
    assert not torch.equal(first.eval()(x), second.eval()(x))
    reload(first, second)
    assert torch.equal(first.eval()(x), second.eval()(x))
    assert torch.equal(first.train()(x), second.train()(x))


def test_memory_format_does_not_matter(name: str) -> None:
    model, x = network(name).eval(), images(name, 2)
    memory_format = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    with torch.no_grad():
        expected = model(x)
        found = model.to(memory_format=memory_format)(x.contiguous(memory_format=memory_format))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_device_does_not_matter(name: str) -> None:
    model, x = network(name).eval(), images(name, 2)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(model.cuda()(x.cuda()).cpu(), expected, rtol=1e-8, atol=1e-8)
    loss = model.train()(x.cuda()).square().sum()
    loss.backward()
    assert all(p.grad.is_cuda and p.grad.isfinite().all() for p in model.parameters())


def test_metadata_builds_the_network_again(name: str) -> None:
    """`spec` goes through JSON and back, and the network from it takes the weights."""
    model, x = network(name), images(name, 1)
    spec = json.loads(json.dumps(model.spec))
    assert spec == {"name": name, "arguments": CASES[name].arguments}
    again = create_network(spec["name"], **spec["arguments"])
    again.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(again.eval()(x), model.eval()(x))


def test_channels_of_the_image(name: str) -> None:
    _, *size = CASES[name].image
    with torch.device("meta"):
        model = create_network(name, **{**CASES[name].arguments, "in_channels": 2}).eval()
        assert model(torch.empty(2, 2, *size)).shape == (2, CASES[name].outputs, *size)
