"""F3Net's cross feature module against its formula, and the order of its maps."""

from __future__ import annotations

import torch

from scripts.networks.comparison.f3net import CrossFeatureModule, F3Net


def test_cross_feature_module() -> None:
    torch.manual_seed(0)
    module = CrossFeatureModule(3).double().eval()
    fine = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    coarse = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    up = torch.nn.functional.interpolate(coarse, (8, 8), mode="bilinear", align_corners=False)
    f, c = module.fine, module.coarse
    product = f.second(f.first(fine)) * c.second(c.first(up))
    expected = f.fourth(f.third(product) + f.first(fine)), c.fourth(c.third(product) + c.first(up))
    torch.testing.assert_close(module(fine, coarse), expected)


def test_maps_are_second_decoder_first_decoder_levels() -> None:
    """Each head alone on a constant: its channel shows the constant, and no other does."""
    torch.manual_seed(0)
    model = F3Net(base_width=4).train()
    heads = [model.out, model.first_head, *model.level_heads]
    with torch.no_grad():
        for index, head in enumerate(heads):
            head.weight.zero_()
            head.bias.fill_(float(index))
        maps = model(torch.randn(2, 1, 64, 64))
    assert torch.equal(maps, torch.arange(6.0).view(1, 6, 1, 1).expand(2, 6, 64, 64))


def test_level_heads_see_their_level() -> None:
    model, sizes = F3Net(base_width=4).train(), []
    for head in model.level_heads:
        head.register_forward_pre_hook(lambda _module, args: sizes.append(args[0].shape[-1]))
    model(torch.randn(2, 1, 128, 128))
    assert sizes == [32, 16, 8, 8]  # the coarsest level leaves its module at the size of the one before


def test_first_decoder_feeds_the_second() -> None:
    """The main map's gradient reaches the first decoder's last module on the side that only
    feedback uses."""
    torch.manual_seed(0)
    model = F3Net(base_width=4).train()
    model(torch.randn(2, 1, 64, 64))[:, 0].square().sum().backward()
    assert model.first.cross[-1].coarse.fourth[0].weight.grad.any()
