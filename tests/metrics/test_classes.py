from __future__ import annotations

import pytest
import torch

from scripts.metrics import SegmentationMetric
from scripts.metrics.classes import class_maps


def maps(codes: list[int]) -> torch.Tensor:
    return torch.stack([torch.tensor([codes]) == number for number in range(3)]).float()


def test_the_mean_over_classes_is_the_mean_of_their_means() -> None:
    output = [
        {"pred": maps([0, 1, 1, 2]), "label": maps([0, 1, 2, 2])},  # Dice 2/3 and 2/3
        {"pred": maps([0, 1, 0, 0]), "label": maps([0, 1, 0, 0])},  # 1, and 1 for none of either
        {"pred": maps([1, 0, 0, 2]), "label": maps([0, 0, 0, 2])},  # 0 and 1
    ]
    found = {}
    for classes in ((1,), (2,), (1, 2)):
        metric = SegmentationMetric("dice")
        predictions, labels = class_maps(classes)(output)
        metric(y_pred=predictions, y=labels)
        found[classes] = metric.aggregate().item()
        assert metric.count == 3 * len(classes)
    assert found[(1,)] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found[(2,)] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert found[(1, 2)] == pytest.approx((found[(1,)] + found[(2,)]) / 2)
