"""PASPP against its formula, and without the defects of the published code."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from scripts.networks.fv_paspp.blocks3d import ProgressiveASPP


def module(channels: int = 8) -> ProgressiveASPP:
    torch.manual_seed(0)
    made = ProgressiveASPP(channels).double()
    with torch.no_grad():
        for norm in (m for m in made.modules() if isinstance(m, nn.BatchNorm3d)):
            norm.running_mean.normal_(std=0.2)
            norm.running_var.uniform_(0.5, 2)
    return made.eval()


def cbr(x: torch.Tensor, weights: dict[str, torch.Tensor], prefix: str) -> torch.Tensor:
    w = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    x = F.conv3d(x, w["conv.weight"], w["conv.bias"])
    return F.relu(F.batch_norm(x, w["adn.N.running_mean"], w["adn.N.running_var"], w["adn.N.weight"], w["adn.N.bias"]))


def test_output_is_the_formula() -> None:
    paspp, x = module(), torch.randn(2, 8, 9, 10, 8, dtype=torch.float64)
    w = paspp.state_dict()
    p = [cbr(x, w, f"project.{k}.") for k in range(4)]
    d = [
        F.conv3d(p[k], w[f"dilate.{k}.weight"], w[f"dilate.{k}.bias"], padding=rate, dilation=rate)
        for k, rate in enumerate((1, 2, 4, 8))
    ]
    assert [one.shape[1] for one in p] == [2] * 4
    near = cbr(torch.cat([d[0] + p[0] + p[1], d[1] + p[0] + p[1]], 1), w, "merge_near.")
    far = cbr(torch.cat([d[2] + p[2] + p[3], d[3] + p[2] + p[3]], 1), w, "merge_far.")
    expected = cbr(torch.cat([near, far], 1), w, "merge.")
    torch.testing.assert_close(paspp(x), expected, rtol=1e-12, atol=1e-12)


def test_parameters() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in ProgressiveASPP(512).parameters()) == 2_429_952


def test_no_convolution_is_shared() -> None:
    """Published code projects with one convolution for all branches and merges both pairs with
    another."""
    convolutions = [m for m in module().modules() if isinstance(m, nn.Conv3d)]
    assert len(convolutions) == 4 + 4 + 2 + 1  # `modules` gives a shared one once
    assert len({m.weight.data_ptr() for m in convolutions}) == 11


def test_every_branch_dilates_its_own_projection() -> None:
    """Published code takes the fourth branch from the second."""
    paspp, seen = module(), {}
    for name, layer in paspp.named_modules():
        layer.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)}))
    paspp(torch.randn(1, 8, 4, 4, 4, dtype=torch.float64))
    for k in range(4):
        assert seen[f"dilate.{k}"][0] is seen[f"project.{k}"][1]
