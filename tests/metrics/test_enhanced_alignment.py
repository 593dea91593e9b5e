from __future__ import annotations

import numpy as np
import pytest
import torch
from py_sod_metrics import Emeasure

from scripts.metrics.functional import e_measure


def brute_force(prob: np.ndarray, target: np.ndarray) -> float:
    """The definition as it is written: every threshold, every pixel."""
    eps, scores = np.spacing(1.0), []
    for k in range(256):
        b = (prob >= np.float32(k) / np.float32(255)).astype(float)
        if target.sum() == 0:
            matrix = 1 - b
        elif target.all():
            matrix = b
        else:
            matrix = np.empty_like(b)
            for i, j in np.ndindex(b.shape):
                phi_f, phi_g = b[i, j] - b.mean(), target[i, j] - target.mean()
                xi = 2 * phi_g * phi_f / (phi_g**2 + phi_f**2 + eps)
                matrix[i, j] = (xi + 1) ** 2 / 4
        scores.append(matrix.sum() / (b.size - 1 + eps))
    return float(np.mean(scores))


@pytest.mark.parametrize("lesion", ["some", "none", "all"])
def test_agrees_with_the_double_loop(lesion):
    rng = np.random.default_rng(1)
    prob = rng.random((5, 7), dtype=np.float32)
    target = {"some": rng.random((5, 7)) > 0.6, "none": np.zeros((5, 7)), "all": np.ones((5, 7))}[lesion]
    found = e_measure(torch.from_numpy(prob)[None, None], torch.from_numpy(target)[None, None]).item()
    assert found == pytest.approx(brute_force(prob, target.astype(float)), abs=1e-9)


def test_agrees_with_pysodmetrics(random_maps):
    prob, target = random_maps(batch=4)
    target[1], target[2] = 0, 1
    oracle = []
    for p, t in zip(prob[:, 0].double().numpy(), target[:, 0].bool().numpy(), strict=True):
        measure = Emeasure()
        measure.step(np.round(p * 255) / 255, t, normalize=False)
        oracle.append(measure.get_results()["em"]["curve"].mean())
    assert e_measure(prob, target).numpy() == pytest.approx(np.array(oracle), abs=1e-9)


def test_toolbox_rules_agree_with_pysodmetrics_normalisation(random_maps):
    prob, target = random_maps(batch=2)
    eight_bit = (30 + torch.round(prob * 171)).to(torch.uint8)  # 30..201: no stretched step meets a threshold
    oracle = Emeasure()
    for p, t in zip(eight_bit[:, 0].numpy(), target[:, 0].numpy(), strict=True):
        oracle.step(p, (255 * t).astype(np.uint8))
    found = e_measure(eight_bit / 255, target, rules="infnet_toolbox")
    assert found.mean().item() == pytest.approx(oracle.get_results()["em"]["curve"].mean(), abs=1e-4)
    assert not torch.allclose(found, e_measure(eight_bit / 255, target), atol=1e-3)


def test_by_hand():
    """A perfect binary map: all 256 thresholds give 16 / 15, but 0, which makes everything lesion:
    4 / 15."""
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2] = 1
    assert e_measure(target, target).item() == pytest.approx((255 * 16 / 15 + 4 / 15) / 256)


def test_empty_target_and_empty_map_lose_the_lowest_threshold_only():
    empty = torch.zeros(1, 1, 4, 4)
    assert e_measure(empty, empty).item() == pytest.approx(255 / 256 * 16 / 15)
