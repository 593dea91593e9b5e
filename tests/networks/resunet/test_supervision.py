"""Supervision heads: one linear 1x1 map a stage, brought to the input's size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scripts.networks.resunet.supervision import SupervisionHeads

CHANNELS = (3, 4, 5, 6, 7)
SIZES = ((16, 32), (8, 16), (4, 8), (2, 4), (1, 2))

Upsample = Callable[[np.ndarray, tuple[int, int]], np.ndarray]
Conv = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def pyramid(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *size, generator=generator, dtype=dtype) for c, size in zip(CHANNELS, SIZES, strict=True)]


@pytest.mark.parametrize("stages", [(1, 2), (3, 4, 5), (1, 2, 3, 4, 5), (2, 5), (4,)])
@pytest.mark.parametrize("size", [(16, 32), (32, 48)])
def test_heads_are_upsample_then_1x1(
    stages: Sequence[int], size: tuple[int, int], numpy_conv: Conv, numpy_upsample: Upsample
) -> None:
    """The order of Fig. 3 (up, then 1x1) in numpy; the module does it the cheap way round."""
    torch.manual_seed(3)
    module, features = SupervisionHeads(CHANNELS, stages).double(), pyramid()
    expected = np.concatenate(
        [
            numpy_conv(
                numpy_upsample(features[stage - 1].numpy(), size),
                head.weight.detach().numpy(),
                head.bias.detach().numpy(),
            )
            for stage, head in zip(stages, module.heads, strict=True)
        ],
        axis=1,
    )
    with torch.no_grad():
        logits = module(features, size)
    assert logits.shape == (2, len(stages), *size)
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-10, atol=1e-10)


def test_projects_before_it_upsamples() -> None:
    """The convolution sees the stage at its own size: 64-512 times cheaper than at H x W."""
    module = SupervisionHeads(CHANNELS, (2, 5)).double()
    seen: list[tuple[int, ...]] = []
    for head in module.heads:
        head.register_forward_pre_hook(lambda _module, args: seen.append(tuple(args[0].shape[2:])))
    module(pyramid(), (16, 32))
    assert seen == [(8, 16), (1, 2)]


def test_float32_order_does_not_matter() -> None:
    torch.manual_seed(4)
    module, features = SupervisionHeads(CHANNELS, (3,)), pyramid(torch.float32)
    up_first = module.heads[0](F.interpolate(features[2], (16, 32), mode="bilinear", align_corners=False))
    torch.testing.assert_close(module(features, (16, 32)), up_first, rtol=0, atol=2e-6)


def test_heads_are_separate_and_of_the_papers_size() -> None:
    module = SupervisionHeads((64, 64, 128, 256, 512), (1, 2, 3, 4, 5))
    assert [tuple(head.weight.shape) for head in module.heads] == [
        (1, 64, 1, 1),
        (1, 64, 1, 1),
        (1, 128, 1, 1),
        (1, 256, 1, 1),
        (1, 512, 1, 1),
    ]
    parameters = list(module.parameters())
    assert len({id(p) for p in parameters}) == 10
    assert sum(p.numel() for p in parameters) == 1_029


def test_logits_are_not_squashed() -> None:
    module = SupervisionHeads(CHANNELS, (1, 5))
    with torch.no_grad():
        for value, head in zip((-7.0, 9.0), module.heads, strict=True):
            head.weight.zero_()
            head.bias.fill_(value)
    logits = module(pyramid(torch.float32), (16, 32))
    assert torch.equal(logits[:, 0], torch.full((2, 16, 32), -7.0))
    assert torch.equal(logits[:, 1], torch.full((2, 16, 32), 9.0))


def test_unsupervised_stages_are_not_touched() -> None:
    features = [feature.requires_grad_() for feature in pyramid()]
    module = SupervisionHeads(CHANNELS, (2, 4)).double()
    module(features, (16, 32)).sum().backward()
    assert [feature.grad is not None for feature in features] == [False, True, False, True, False]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
