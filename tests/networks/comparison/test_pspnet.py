"""The pyramid of PSPNet against means by hand."""

from __future__ import annotations

import torch
from torch import nn

from scripts.networks.comparison.pspnet import PSPNet, PyramidPooling


def test_pyramid_is_of_means_over_regions() -> None:
    torch.manual_seed(0)
    module, x = PyramidPooling(2, 3).double().eval(), torch.rand(1, 2, 12, 12, dtype=torch.float64)
    with torch.no_grad():
        found = module(x)
        assert torch.equal(found[:, :2], x)
        for index, bins in enumerate((1, 2, 3, 6)):
            side = 12 // bins
            pooled = x.unfold(2, side, side).unfold(3, side, side).mean(dim=(-1, -2))
            assert pooled.shape == (1, 2, bins, bins)
            weight = next(m for m in module.branches[index].modules() if isinstance(m, nn.Conv2d))
            corner = torch.einsum("oc,c->o", weight.weight[:, :, 0, 0], pooled[0, :, 0, 0])
            norm = next((m for m in module.branches[index].modules() if isinstance(m, nn.BatchNorm2d)), None)
            corner = corner + weight.bias if norm is None else corner / (1 + norm.eps) ** 0.5
            torch.testing.assert_close(found[0, 2 + 3 * index : 5 + 3 * index, 0, 0], corner.relu())


def test_auxiliary_map_is_of_the_third_stage() -> None:
    """Its gradient reaches the third stage and not the fourth."""
    torch.manual_seed(0)
    model = PSPNet(base_width=4).train()
    model(torch.randn(2, 1, 64, 64))[:, 1].square().sum().backward()
    reached = [any(p.grad is not None and p.grad.any() for p in stage.parameters()) for stage in model.encoder.stages]
    assert reached == [True, True, True, False]
