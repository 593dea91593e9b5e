"""Gradients in bfloat16 on the processor at hand: a library that computes them from memory which
nobody wrote does so for some shapes and on some processors only."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from scripts.inference.inferer import NetworkInferer
from scripts.networks.registry import create_network
from scripts.precision import mixed_precision
from scripts.settings import memory_format
from tests.networks.test_contract import CASES, CONVOLUTIONS


@pytest.fixture(autouse=True)
def used_memory() -> None:
    """Freed memory that is reused holds no number."""
    torch.full((2**22,), float("nan"))


@pytest.mark.skipif(mixed_precision("auto", "cpu") is not torch.bfloat16, reason="this processor has no bfloat16")
@pytest.mark.parametrize("name", sorted(CASES))
def test_every_convolution_learns_by_the_gradient_of_its_weights(name: str) -> None:
    """Each layer's gradient is computed again from what it received, in float32 and contiguous."""
    torch.manual_seed(0)
    network, received = create_network(name, **CASES[name].arguments).train(), []
    layout = memory_format(True, "cpu", network)
    network.to(memory_format=layout)

    def record(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: received.append((layer, inputs[0].detach(), gradient.detach())))

    for layer in network.modules():
        if isinstance(layer, CONVOLUTIONS):
            layer.register_forward_hook(record)
    images = torch.randn(2, *CASES[name].image).contiguous(memory_format=layout)
    logits = NetworkInferer(True)(images, network)
    (logits * torch.randn_like(logits)).sum().backward()

    wanted: dict[nn.Module, Tensor] = {}
    for layer, image, gradient in received:
        rounded = image.to(gradient.dtype).float().contiguous()
        wanted[layer] = wanted.get(layer, 0) + weight_gradient(layer, rounded, gradient.float().contiguous())
    assert len(wanted) > 10
    for layer, gradient in wanted.items():
        assert (layer.weight.grad - gradient).norm() <= 0.02 * gradient.norm(), layer


def weight_gradient(layer: nn.Module, image: Tensor, gradient: Tensor) -> Tensor:
    weight = layer.weight.detach().contiguous().requires_grad_()
    if isinstance(layer, (nn.ConvTranspose2d, nn.ConvTranspose3d)):
        geometry = (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
        transposed = functional.conv_transpose2d if image.dim() == 4 else functional.conv_transpose3d
        output = transposed(image, weight, None, *geometry)
    else:
        output = layer._conv_forward(image, weight, None)
    (found,) = torch.autograd.grad(output, weight, gradient)
    return found
