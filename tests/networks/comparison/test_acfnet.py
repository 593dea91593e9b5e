"""The class features of ACFNet against their sums written out."""

from __future__ import annotations

import torch

from scripts.networks.comparison.acfnet import ACFNet, ClassFeatures


def test_class_features() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    coarse = torch.randn(2, 1, 3, 4, generator=generator, dtype=torch.float64)
    found = ClassFeatures()(features, coarse).flatten(2)
    for b in range(2):
        pixels, lesion = features[b].flatten(1), torch.sigmoid(coarse[b]).flatten()
        centres = [sum(p[j] * pixels[:, j] for j in range(12)) / p.sum() for p in (1 - lesion, lesion)]
        for j in range(12):
            expected = (1 - lesion[j]) * centres[0] + lesion[j] * centres[1]
            torch.testing.assert_close(found[b, :, j], expected)


def test_a_pixel_that_is_sure_gets_the_mean_of_its_class() -> None:
    features = torch.tensor([1.0, 3.0, 10.0, 20.0]).reshape(1, 1, 2, 2)
    coarse = torch.tensor([-100.0, -100.0, 100.0, 100.0]).reshape(1, 1, 2, 2)
    torch.testing.assert_close(ClassFeatures()(features, coarse).flatten(), torch.tensor([2.0, 2.0, 15.0, 15.0]))
    torch.testing.assert_close(
        ClassFeatures()(features, torch.full_like(coarse, -100.0)), torch.full((1, 1, 2, 2), 8.5)
    )


def test_heads_are_the_coarse_map_and_that_of_the_third_stage() -> None:
    for channel, reached in ((0, (True, True, False)), (1, (True, False, False)), (2, (False, False, True))):
        torch.manual_seed(0)
        model = ACFNet(base_width=4).train()
        model(torch.randn(2, 1, 64, 64))[:, channel].square().sum().backward()
        parts = (model.reduce, model.merge, model.auxiliary)
        found = [any(p.grad is not None and p.grad.any() for p in part.parameters()) for part in parts]
        assert tuple(found) == reached
