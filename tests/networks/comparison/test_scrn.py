"""SCRN's cross refinement against its formulas."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from scripts.networks.comparison.scrn import SCRN, CrossRefinementUnit


def test_a_unit_refines_every_level_from_unrefined_ones() -> None:
    torch.manual_seed(0)
    unit = CrossRefinementUnit(3).double().eval()
    s, e = ([torch.randn(2, 3, n, n, dtype=torch.float64) for n in (16, 8, 4, 2)] for _ in range(2))
    regions, edges = unit(s, e)
    for k in range(4):

        def up(x: torch.Tensor, k: int = k) -> torch.Tensor:
            return F.interpolate(x, s[k].shape[2:], mode="bilinear", align_corners=False)

        level, coarser = unit[k], range(k + 1, 4)
        united = [s[k], e[k], *(level.edge_up[j - k - 1](up(e[j])) for j in coarser)]
        torch.testing.assert_close(regions[k], s[k] + level.region(torch.cat(united, dim=1)))
        product = e[k] * s[k]
        for j in coarser:
            product = product * level.region_up[j - k - 1](up(s[j]))
        torch.testing.assert_close(edges[k], e[k] + level.edge(product))


def test_maps_are_region_then_edge() -> None:
    model = SCRN(base_width=4).train()
    with torch.no_grad():
        for head, value in ((model.region_head, 2.0), (model.edge_head, -3.0)):
            head.out[-1].weight.zero_()
            head.out[-1].bias.fill_(value)
        maps = model(torch.randn(2, 1, 64, 64))
    assert torch.equal(maps, torch.tensor([2.0, -3.0]).view(1, 2, 1, 1).expand(2, 2, 64, 64))


def test_four_units() -> None:
    with torch.device("meta"):
        assert len(SCRN(base_width=4).units) == 4
