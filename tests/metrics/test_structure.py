from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from py_sod_metrics import Smeasure

from scripts.metrics.functional import s_measure


def ssim(x: np.ndarray, y: np.ndarray) -> float:
    n, mx, my = x.size, x.mean(), y.mean()
    vx = ((x - mx) ** 2).sum() / max(n - 1, 1)
    vy = ((y - my) ** 2).sum() / max(n - 1, 1)
    cov = ((x - mx) * (y - my)).sum() / max(n - 1, 1)
    numerator, denominator = 4 * mx * my * cov, (mx**2 + my**2) * (vx + vy)
    if numerator != 0:
        return numerator / denominator
    return 1.0 if denominator == 0 else 0.0


def by_definition(x: np.ndarray, g: np.ndarray) -> float:
    """The definition with explicit blocks, for a target that is neither empty nor full."""

    def uniformity(v: np.ndarray) -> float:
        s = v.std(ddof=1) if v.size > 1 else 0.0
        return 2 * v.mean() / (v.mean() ** 2 + 1 + s)

    mu = g.mean()
    s_object = mu * uniformity(x[g]) + (1 - mu) * uniformity(1 - x[~g])
    rows, columns = np.nonzero(g)
    row, column = (math.floor((v + 1).mean() + 0.5) for v in (rows, columns))  # 1-based, half up
    s_region = 0.0
    for r in (slice(0, row), slice(row, None)):
        for c in (slice(0, column), slice(column, None)):
            if x[r, c].size:
                s_region += x[r, c].size / x.size * ssim(x[r, c], g[r, c].astype(float))
    return max(0.0, 0.5 * s_object + 0.5 * s_region)


def as_maps(x: np.ndarray, g: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(x)[None, None].float(), torch.from_numpy(g)[None, None]


def test_agrees_with_pysodmetrics(random_maps):
    prob, target = random_maps(batch=6, seed=3)
    target[1], target[2] = 0, 1
    oracle = []
    for p, t in zip(prob[:, 0].numpy(), target[:, 0].bool().numpy(), strict=True):
        measure = Smeasure()
        measure.step(p.astype(np.float64), t, normalize=False)
        oracle.append(measure.get_results()["sm"])
    assert s_measure(prob, target).numpy() == pytest.approx(np.array(oracle), abs=1e-9)


def test_toolbox_rules_agree_with_pysodmetrics_normalisation(random_maps):
    prob, target = random_maps(batch=2)
    eight_bit = (30 + torch.round(prob * 171)).to(torch.uint8)
    oracle = Smeasure()
    for p, t in zip(eight_bit[:, 0].numpy(), target[:, 0].numpy(), strict=True):
        oracle.step(p, (255 * t).astype(np.uint8))
    found = s_measure(eight_bit / 255, target, rules="infnet_toolbox").mean().item()
    assert found == pytest.approx(oracle.get_results()["sm"], abs=1e-6)


@pytest.mark.parametrize(
    "box",
    [
        (slice(1, 3), slice(2, 6)),  # centroid half way between lines: MATLAB rounds up
        (slice(6, 7), slice(8, 9)),  # one pixel in the corner: two blocks of no area, one of one column
        (slice(0, 1), slice(0, 1)),  # a block of one pixel
        (slice(0, 7), slice(0, 4)),
    ],
)
@pytest.mark.parametrize("quality", ["random", "perfect", "constant", "inverted"])
def test_agrees_with_the_definition(box, quality):
    g = np.zeros((7, 9), dtype=bool)
    g[box] = True
    x = {
        "random": np.random.default_rng(5).random((7, 9), dtype=np.float32),
        "perfect": g.astype(np.float32),
        "constant": np.full((7, 9), 0.25, dtype=np.float32),
        "inverted": (~g).astype(np.float32),
    }[quality]
    assert s_measure(*as_maps(x, g)).item() == pytest.approx(by_definition(x.astype(float), g), abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.2, 1.0])
def test_empty_and_full_targets(value):
    prob = torch.full((1, 1, 4, 4), value)
    assert s_measure(prob, torch.zeros_like(prob)).item() == pytest.approx(1 - value)
    assert s_measure(prob, torch.ones_like(prob)).item() == pytest.approx(value)


def test_perfect_map_scores_1():
    target = torch.zeros(1, 1, 8, 8)
    target[..., 2:5, 1:7] = 1
    assert s_measure(target, target).item() == pytest.approx(1)


def test_images_of_a_batch_do_not_mix(random_maps):
    prob, target = random_maps(batch=5)
    one_by_one = torch.cat([s_measure(prob[i : i + 1], target[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(s_measure(prob, target), one_by_one)


def test_a_filled_target_is_known_where_its_mean_misses_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's mean is the sum times 1 / n: of 49 ones, as of 630 x 401, it is less than 1."""
    monkeypatch.setattr(torch.Tensor, "mean", lambda x, axes: x.sum(axes) * (1 / 49))
    prob = torch.linspace(0, 1, 49).view(1, 1, 7, 7)
    assert s_measure(prob, torch.ones(1, 1, 7, 7)).item() == pytest.approx(0.5)
