from __future__ import annotations

import math

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler, from_engine
from monai.losses import DiceLoss
from torch.utils._python_dispatch import TorchDispatchMode

from scripts.losses.cosupervision import soft_dice
from scripts.metrics.cumulative import (
    SegmentationMeasures,
    SegmentationMetric,
    SoftDiceLossMetric,
)
from scripts.metrics.functional import MEASURES, measure


@pytest.fixture
def four_slices():
    """Lesion found in part, lesion missed, no lesion, false positives: Dice 2/3, 0, 1, 0."""
    prob, target = torch.zeros(4, 1, 2, 4), torch.zeros(4, 1, 2, 4)
    target[0, ..., 0, :2] = 1
    prob[0, ..., 0, 0] = 0.9
    target[1, ..., 1, :] = 1
    prob[3, ..., :3] = 0.6
    return prob, target


def figure(metric, prob, target):
    metric(y_pred=list(prob), y=list(target))
    return metric.aggregate().item(), metric.count


@pytest.mark.parametrize(
    ("name", "aggregation", "expected", "count"),
    [
        ("dice", "slice", (2 / 3 + 0 + 1 + 0) / 4, 4),
        ("dice", "positive_slice", (2 / 3 + 0) / 2, 2),
        ("dice", "case", (2 / 3 + 0 + 1 + 0) / 4, 4),
        ("dice", "pooled", 2 / (7 + 6), 4),
        ("iou", "slice", (1 / 2 + 0 + 1 + 0) / 4, 4),
        ("iou", "positive_slice", (1 / 2 + 0) / 2, 2),
        ("iou", "pooled", 1 / (7 + 6 - 1), 4),
        ("sensitivity", "slice", (1 / 2 + 0) / 2, 2),
        ("sensitivity", "pooled", 1 / 6, 4),
        ("precision", "slice", (1 + 0) / 2, 2),
        ("precision", "positive_slice", 1, 1),
        ("precision", "pooled", 1 / 7, 4),
        ("mae", "slice", (1.1 + 4 + 0 + 3.6) / 32, 4),
        ("mae", "positive_slice", (1.1 + 4) / 16, 2),
    ],
)
def test_aggregations_of_slices_by_hand(name, aggregation, expected, count, four_slices):
    assert figure(SegmentationMetric(name, aggregation), *four_slices) == (pytest.approx(expected), count)


@pytest.mark.parametrize(
    ("name", "aggregation", "expected", "count"),
    [
        ("dice", "slice", (2 / 3 + 0 + 1 + 0) / 4, 4),
        ("dice", "positive_slice", 1 / 3, 2),
        ("dice", "case", (2 / 7 + 0) / 2, 2),  # slices 0 and 1 are a case, 2 and 3 the other
        ("iou", "case", (1 / 6 + 0) / 2, 2),
        ("sensitivity", "case", 1 / 6, 1),
        ("dice", "pooled", 2 / 13, 2),
        ("mae", "case", (5.1 + 3.6) / 32, 2),
    ],
)
def test_aggregations_of_volumes_by_hand(name, aggregation, expected, count, four_slices):
    volumes = [torch.stack(list(maps.view(2, 2, 1, 2, 4)), 0).movedim(1, -1) for maps in four_slices]
    metric = SegmentationMetric(name, aggregation)
    assert figure(metric, *volumes) == (pytest.approx(expected), count)
    metric.reset()
    metric(*volumes)  # a batch (2, 1, 2, 4, 2) is the same as a list
    assert metric.aggregate().item() == pytest.approx(expected)


@pytest.mark.parametrize("rules", ["plain", "infnet_toolbox"])
@pytest.mark.parametrize("name", MEASURES)
def test_mean_over_slices_is_the_mean_of_the_measure(name, rules, random_maps):
    prob, target = random_maps(batch=4)
    target[1] = 0
    found = figure(SegmentationMetric(name, rules=rules), prob, target)[0]
    assert found == pytest.approx(measure(name, prob, target, rules=rules).nanmean().item())


def test_cases_may_differ_in_size(random_maps):
    small, large = random_maps(batch=2), random_maps(batch=5, height=20, width=20)
    metric = SegmentationMetric("e_measure", "case")
    cases = [[maps.movedim(0, -1) for maps in pair] for pair in (small, large)]
    metric(y_pred=[p for p, _ in cases], y=[t for _, t in cases])
    expected = [measure("e_measure", *pair).mean().item() for pair in (small, large)]
    assert metric.aggregate().item() == pytest.approx(sum(expected) / 2)


@pytest.mark.parametrize("name", ["mae", "dice"])
def test_a_case_has_its_own_value(name, random_maps):
    """What save_details keeps is one row a case."""
    cases = [random_maps(batch=3, seed=seed) for seed in (1, 2)]
    prob, target = (torch.stack(maps).movedim(1, -1) for maps in zip(*cases, strict=True))  # (2, 1, H, W, 3)
    rows = SegmentationMetric(name, "case")(prob, target)
    for row, maps in zip(rows, cases, strict=True):
        as_one_map = [m.reshape(1, 1, -1, m.shape[-1]) for m in maps]  # slices of one size: MAE agrees too
        torch.testing.assert_close(row, measure(name, *as_one_map))
    assert rows.shape == (2, 1)
    assert rows[0] != rows[1]


def all_metrics():
    for aggregation in ("slice", "positive_slice", "case", "pooled"):
        yield SegmentationMetric("precision", aggregation)
    yield SegmentationMetric("dice", "case", rules="infnet_toolbox")
    yield SegmentationMetric("s_measure", "positive_slice")
    yield SegmentationMetric("e_measure")
    yield SoftDiceLossMetric()


@pytest.mark.parametrize("metric", all_metrics(), ids=lambda m: type(m).__name__)
def test_how_the_set_is_cut_into_batches_does_not_matter(metric, random_maps):
    prob, target = random_maps(batch=7)
    target[2], prob[4] = 0, 0
    whole = figure(metric, prob, target)
    metric.reset()
    for batch in (slice(0, 1), slice(1, 5), slice(5, 7)):
        metric(prob[batch], target[batch])
    assert (metric.aggregate().item(), metric.count) == (pytest.approx(whole[0]), whole[1])


@pytest.mark.parametrize("metric", all_metrics(), ids=lambda m: type(m).__name__)
def test_training_label_with_edge_channel(metric, random_maps):
    prob, target = random_maps()
    plain = figure(metric, prob, target)
    metric.reset()
    assert figure(metric, MetaTensor(prob), torch.cat([target, 1 - target], dim=1)) == plain


@pytest.mark.parametrize(
    ("aggregation", "expected"), [("slice", 2 / 3), ("case", 2 / 3), ("positive_slice", 1 / 3), ("pooled", 2 / 7)]
)
def test_threshold_is_used(aggregation, expected, four_slices):
    found = figure(SegmentationMetric("dice", aggregation, threshold=0.7), *four_slices)[0]
    assert found == pytest.approx(expected)  # no false positives any more: 2/3, 0, 1, 1


def test_no_defined_value_gives_nan_and_n_0():
    empty = torch.zeros(2, 1, 4, 4)
    value, count = figure(SegmentationMetric("sensitivity"), empty, empty)
    assert math.isnan(value)
    assert count == 0


@pytest.mark.parametrize("aggregation", ["slice", "positive_slice", "case"])
@pytest.mark.parametrize("rules", ["plain", "infnet_toolbox"])
def test_measures_computed_together_are_those_computed_one_by_one(aggregation, rules, random_maps):
    prob, target = (maps.view(3, 2, 1, *maps.shape[2:]).movedim(1, -1) for maps in random_maps(batch=6))
    target[1], prob[2] = 0, 0
    together = SegmentationMeasures(aggregation=aggregation, rules=rules)
    together(list(prob), list(target))
    found = together.aggregate()
    assert list(found) == list(MEASURES)
    for name, value in found.items():
        alone = figure(SegmentationMetric(name, aggregation, rules=rules), prob, target)[0]
        assert value.item() == pytest.approx(alone, abs=1e-12, nan_ok=True), name


def test_ratios_computed_together_are_pooled(four_slices):
    together = SegmentationMeasures(("iou", "sensitivity"), "pooled")
    together(*four_slices)
    found = {name: value.item() for name, value in together.aggregate().items()}
    assert found == pytest.approx({"iou": 1 / 12, "sensitivity": 1 / 6})


class NothingRead(TorchDispatchMode):
    """Refuses what waits for the device: `item`,
    `bool` and what else reads the value of a tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a value was read from the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("metric", all_metrics(), ids=lambda m: type(m).__name__)
def test_a_batch_is_taken_without_reading_from_the_device(metric, random_maps):
    prob, target = random_maps()
    metric.reset()
    with NothingRead():
        metric(list(prob), list(target))
        metric(prob, target)


def test_soft_dice_loss_is_the_training_loss_of_the_set_as_one_batch(random_maps):
    prob, target = random_maps(batch=6)
    target[3:] = 0
    found = figure(SoftDiceLossMetric(), prob, target)[0]
    monai_loss = DiceLoss(batch=True, smooth_nr=0, smooth_dr=1e-5)(prob, target)
    assert found == pytest.approx(monai_loss.item(), abs=1e-6)
    assert found == pytest.approx(1 - soft_dice(prob, target).item(), abs=1e-6)


def test_soft_dice_loss_of_nothing_is_1():
    empty = torch.zeros(2, 1, 4, 4)
    assert figure(SoftDiceLossMetric(), empty, empty) == (1.0, 2)


def test_under_ignite(four_slices):
    """As in an evaluator: the figure in state.metrics, a row a slice in metric_details,
    reset every epoch."""
    prob, target = four_slices

    def step(engine, index):
        return [{"pred": prob[index], "label": target[index]}]

    engine = Engine(step)
    handler = IgniteMetricHandler(metric_fn=SegmentationMetric("dice"), output_transform=from_engine(["pred", "label"]))
    handler.attach(engine, "val_mean_dice")
    seen = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: seen.append(e.state.metrics["val_mean_dice"]))
    engine.run(range(4), max_epochs=2)
    assert seen == [pytest.approx(5 / 12)] * 2
    assert engine.state.metric_details["val_mean_dice"].shape == (4, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "jaccard"}, "measure is 'jaccard'; expected: dice, iou"),
        ({"aggregation": "volume"}, "expected: slice, positive_slice, case, pooled"),
        ({"rules": "none"}, "expected: plain, infnet_toolbox"),
        ({"name": "mae", "aggregation": "pooled"}, "no ratio of counts"),
        ({"rules": "infnet_toolbox", "aggregation": "pooled"}, "no ratio of counts"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SegmentationMetric(**arguments)


@pytest.mark.parametrize("metric", [SegmentationMetric(), SoftDiceLossMetric()])
def test_wrong_calls(metric):
    with pytest.raises(ValueError, match="no prediction yet"):
        metric.aggregate()
    maps = torch.zeros(1, 1, 4, 4)
    for wrong in (maps - 3, maps + 1.5, maps * torch.nan):
        metric(wrong, maps)
        metric(maps, maps)
        with pytest.raises(ValueError, match="after the sigmoid"):
            metric.aggregate()
        metric.reset()
    with pytest.raises(ValueError, match="y is missing"):
        metric(maps)
    with pytest.raises(ValueError, match="one predicted channel"):
        metric(torch.zeros(1, 6, 4, 4), maps)
    with pytest.raises(ValueError, match="same size"):
        metric(torch.zeros(1, 1, 4, 5), maps)
