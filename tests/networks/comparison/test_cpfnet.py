"""CPFNet's fusion against its formula; what is odd in the published code is not here."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from scripts.networks.comparison.cpfnet import CPFNet, ScaleAwarePyramidFusion


def fusion() -> tuple[ScaleAwarePyramidFusion, torch.Tensor]:
    torch.manual_seed(0)
    return ScaleAwarePyramidFusion(4).double().eval(), torch.rand(2, 4, 10, 9, dtype=torch.float64)


def test_fusion_selects_pixel_by_pixel_among_three_dilations_of_one_kernel() -> None:
    module, x = fusion()
    torch.testing.assert_close(module(x), x)  # gamma is 0 at first, x >= 0
    nn.init.constant_(module.gamma, 0.3)
    scales = [
        norm(F.conv2d(x, module.shared.weight, padding=rate, dilation=rate)).relu()
        for norm, rate in zip(module.norms, (1, 2, 4), strict=True)
    ]
    selected = scales[0]
    for stage, scale in ((module.near, scales[1]), (module.far, scales[2])):
        maps = stage.attention(torch.cat([stage.first(selected), stage.second(scale)], dim=1)).exp()
        selected = (maps[:, :1] * selected + maps[:, 1:] * scale) / maps.sum(dim=1, keepdim=True)
    torch.testing.assert_close(module(x), (0.3 * selected + 0.7 * x).relu())


def test_second_stage_has_an_attention_of_its_own() -> None:
    """Forced to the second of its maps it gives the widest dilation alone,
    whatever the first stage selects."""
    module, x = fusion()
    nn.init.constant_(module.gamma, 1.0)
    with torch.no_grad():
        module.far.attention.weight.zero_()
        module.far.attention.bias.copy_(torch.tensor([-1e3, 1e3]))
        widest = module.norms[2](F.conv2d(x, module.shared.weight, padding=4, dilation=4)).relu()
        torch.testing.assert_close(module(x), widest)
        module.far.attention.bias.copy_(torch.tensor([1e3, -1e3]))
        module.near.attention.weight.zero_()
        module.near.attention.bias.copy_(torch.tensor([-1e3, 1e3]))
        middle = module.norms[1](F.conv2d(x, module.shared.weight, padding=2, dilation=2)).relu()
        torch.testing.assert_close(module(x), middle)


def test_output_is_logits() -> None:
    """No log_softmax, let alone two: the bias of the last convolution comes out as it is."""
    model = CPFNet(base_width=4).eval()
    with torch.no_grad():
        model.out.weight.zero_()
        model.out.bias.fill_(7.5)
        assert torch.equal(model(torch.randn(1, 1, 64, 64)), torch.full((1, 1, 64, 64), 7.5))
