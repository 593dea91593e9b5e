from __future__ import annotations

import math

import pytest
import torch
from monai.metrics import compute_iou
from py_sod_metrics import MAE
from torch.utils._python_dispatch import TorchDispatchMode

from scripts.metrics import counts, functional
from scripts.metrics.functional import (
    MEASURES,
    dice,
    iou,
    mean_absolute_error,
    measure,
    measure_all,
    precision,
    sensitivity,
    specificity,
)

RULES = ("plain", "infnet_toolbox")


def dice_curve(prob, target):
    return counts.counts_over_thresholds(*counts.prepare_maps(prob, target)).dice()


@pytest.fixture
def four_by_four():
    prob = torch.zeros(1, 1, 4, 4)
    prob[0, 0, 0] = torch.tensor([1.0, 0.75, 0.5, 0.25])
    target = torch.zeros(1, 1, 4, 4)
    target[0, 0, 0, :2] = 1
    return prob, target


def test_by_hand(four_by_four):
    assert dice(*four_by_four).item() == pytest.approx(4 / 5)
    assert sensitivity(*four_by_four).item() == 1
    assert precision(*four_by_four).item() == pytest.approx(2 / 3)
    assert specificity(*four_by_four).item() == pytest.approx(13 / 14)
    assert mean_absolute_error(*four_by_four).item() == pytest.approx(1 / 16)
    assert precision(*four_by_four, threshold=0.6).item() == 1


def test_mae_agrees_with_pysodmetrics(random_maps):
    prob, target = random_maps()
    oracle = MAE()
    for p, t in zip((prob * 255).round().to(torch.uint8).numpy(), target.numpy(), strict=True):
        oracle.step(p[0], (255 * t[0]).astype("uint8"))
    assert mean_absolute_error(prob, target).mean().item() == pytest.approx(oracle.get_results()["mae"], abs=1e-7)
    assert mean_absolute_error(prob / 2, target, rules="infnet_toolbox").mean().item() == pytest.approx(
        oracle.get_results()["mae"], abs=1e-6
    )


def test_dice_curve_by_hand(four_by_four):
    """Thresholds 0: 16 pixels; 1..63: 4; 64..127: 3; 128..191: 2; 192..255:
    1 (0.25 is 63.75 / 255)."""
    curve = dice_curve(*four_by_four)[0]
    expected = [4 / 18] + 63 * [4 / 6] + 64 * [4 / 5] + 64 * [1] + 64 * [2 / 3]
    torch.testing.assert_close(curve, torch.tensor(expected, dtype=torch.float64))
    assert dice(*four_by_four, rules="infnet_toolbox").item() == pytest.approx(sum(expected) / 256)


def test_toolbox_gives_0_to_whatever_has_no_common_pixel():
    empty = torch.zeros(1, 1, 4, 4)
    for name in ("dice", "sensitivity", "specificity", "precision"):
        assert measure(name, empty, empty, rules="infnet_toolbox").item() == 0
    assert dice_curve(empty, empty)[0].tolist() == [0] + 255 * [1]


def test_toolbox_gives_0_to_a_lesion_that_is_missed():
    """Prediction and lesion, a pixel each, apart: they meet at threshold 0 only,
    where all is lesion."""
    prob, target = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    prob[..., 0, 0] = target[..., 3, 3] = 1
    expected = {"dice": 2 / 17 / 256, "sensitivity": 1 / 256, "specificity": 0, "precision": 1 / 16 / 256}
    for name, value in expected.items():
        assert measure(name, prob, target, rules="infnet_toolbox").item() == pytest.approx(value)


def test_toolbox_overlap_agrees_with_a_loop_over_thresholds(random_maps):
    prob, target = random_maps(batch=2)
    prob = 0.2 + 0.5 * prob
    expected = {name: [] for name in ("dice", "sensitivity", "specificity", "precision")}
    for p, t in zip(prob, target.bool(), strict=True):
        stretched = (p - p.min()) / (p.max() - p.min())
        rows = []
        for k in range(256):
            b = stretched >= torch.tensor(k) / 255
            tp, fp, fn, tn = ((b & t).sum(), (b & ~t).sum(), (~b & t).sum(), (~b & ~t).sum())
            good = tp > 0
            rows.append(
                [(2 * tp / (2 * tp + fp + fn)), tp / (tp + fn), tn / (tn + fp), tp / (tp + fp)]
                if good
                else [torch.tensor(0.0)] * 4
            )
        for name, column in zip(expected, zip(*rows, strict=True), strict=True):
            expected[name].append(torch.stack(column).mean())
    for name, values in expected.items():
        found = measure(name, prob, target, rules="infnet_toolbox")
        torch.testing.assert_close(found.float(), torch.stack(values), atol=1e-6, rtol=0)


@pytest.mark.parametrize("rules", RULES)
def test_all_at_once_equals_one_by_one(rules, random_maps):
    prob, target = random_maps(batch=4)
    target[1], target[2], prob[3] = 0, 1, 0
    together = measure_all(prob, target, threshold=0.4, rules=rules)
    assert tuple(together) == MEASURES
    for name, values in together.items():
        single = measure(name, prob, target, threshold=0.4, rules=rules)
        assert single.shape == (4,)
        torch.testing.assert_close(values, single, equal_nan=True)


def test_iou_agrees_with_monai(random_maps):
    prob, target = random_maps()
    oracle = compute_iou((prob >= 0.5).float(), target)[:, 0]
    torch.testing.assert_close(iou(prob, target).float(), oracle)
    assert 0.1 < iou(prob, target).mean() < 0.9


def test_undefined_ratios_are_nan():
    empty, full = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert math.isnan(sensitivity(full, empty))
    assert math.isnan(precision(empty, full))
    assert math.isnan(specificity(full, full))
    assert dice(empty, empty) == 1
    assert dice(empty, full) == dice(full, empty) == 0
    assert iou(empty, empty) == 1
    assert iou(empty, full) == iou(full, empty) == 0


def test_unknown_measure_names_the_known():
    with pytest.raises(ValueError, match="'jaccard'; expected: dice, iou, sensitivity, specificity, precision, mae"):
        measure("jaccard", torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize("rules", RULES)
def test_nothing_waits_for_the_device(rules, random_maps, monkeypatch):
    maps = random_maps()

    def forbidden(*args, **kwargs):
        raise AssertionError("copies to the CPU or waits for the device")

    for name in ("cpu", "item", "numpy", "tolist", "nonzero", "__bool__", "__float__", "__int__", "__index__"):
        monkeypatch.setattr(torch.Tensor, name, forbidden)
    measure_all(*maps, rules=rules)


@pytest.mark.parametrize("rules", RULES)
def test_results_stay_on_the_device(rules):
    maps = torch.zeros(2, 1, 8, 8, device="meta")
    for values in measure_all(maps, maps, rules=rules).values():
        assert values.device.type == "meta"
        assert values.shape == (2,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_type_of_the_map_does_not_matter(dtype, random_maps):
    prob, target = random_maps()
    prob = prob.to(dtype)
    for name, values in measure_all(prob, target.to(torch.uint8)).items():
        torch.testing.assert_close(values, measure(name, prob.float(), target))


def test_float32_devices_agree(random_maps, monkeypatch):
    """As on MPS, which has no float64."""
    maps = random_maps(height=256, width=256)
    exact = measure_all(*maps)
    for module in (counts, functional):
        monkeypatch.setattr(module, "working_dtype", lambda device: torch.float32)
    for name, values in measure_all(*maps).items():
        assert values.dtype == torch.float32
        torch.testing.assert_close(values.double(), exact[name], atol=2e-6, rtol=0)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("rules", RULES)
def test_memory_grows_with_the_pixels_not_with_the_thresholds(rules):
    prob = torch.rand(1, 1, 1024, 1024, generator=torch.Generator().manual_seed(0))
    target = (prob > 0.7).float()
    with LargestTensor() as largest:
        measure_all(prob, target, rules=rules)
    assert largest.elements == prob.numel()
