"""Metrics that collect over an epoch, for MONAI's engines and handlers (IgniteMetricHandler)."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from scripts.metrics.counts import (
    OVERLAP_RATIOS,
    Counts,
    Rules,
    check_probabilities,
    check_rules,
    counts_at,
    prepare_maps,
    working_dtype,
)
from scripts.metrics.functional import MEASURES, dice_over_thresholds, mean_and_max_dice, measure
from scripts.metrics.slices import batch_to_slices, per_slice

Aggregation = Literal["slice", "positive_slice", "case", "pooled"]


class _MapMetric(CumulativeIterationMetric):
    """Rows of equal width in one buffer, which MONAI gathers over the processes.

    Called with `y_pred`, probabilities: a list of (1, H, W) or (1, X, Y, Z), or a batch (B, 1, ...); and `y`,
    the mask, or (2, ...) whose first channel is the mask (the training label: mask, edge).
    """

    def _rows(self) -> Tensor:
        rows = self.get_buffer()
        if not isinstance(rows, Tensor):
            raise ValueError(f"{type(self).__name__} has seen no prediction yet")
        return rows


class SegmentationMetric(_MapMetric):
    """One measure of `functional` over everything seen since the last reset.

    `y_pred` holds probabilities: a list of (1, H, W) or (1, X, Y, Z), or a batch (B, 1, ...), each item a
    case; a volume's last axis counts its slices. `y` is the mask, or (2, ...) whose first channel is the
    mask. Undefined values (NaN) are left out of means; `count` says how many remain.

    Args:
        name: one of `functional.MEASURES`.
        aggregation: "slice": mean over all slices (Dice of two empty masks is 1); "positive_slice": over
            those whose target is not empty; "case": mean over cases, overlap measures from the counts of the
            whole case, the others as the mean over its slices; "pooled": from the counts of everything.
        threshold: probability from which a pixel is lesion.
        rules: "plain" or "infnet_toolbox", see `functional`. The toolbox knows images only: a case is then
            the mean over its slices.

    Raises:
        ValueError: for unknown names; for "pooled" with a measure or rules that counts cannot give; when
            called, for values outside [0, 1], more than one predicted channel, or shapes that do not match.

    >>> metric = SegmentationMetric("dice")
    >>> empty = torch.zeros(1, 2, 2)
    >>> _ = metric(y_pred=[torch.ones(1, 2, 2), empty], y=[torch.eye(2)[None], empty])
    >>> metric.aggregate().item(), metric.count  # (2/3 + 1) / 2
    (0.8333333333333333, 2)
    """

    def __init__(
        self,
        name: str = "dice",
        aggregation: Aggregation = "slice",
        threshold: float = 0.5,
        rules: Rules = "plain",
    ) -> None:
        super().__init__()
        check_rules(rules)
        if name not in MEASURES:
            raise ValueError(f"name is {name!r}; accepted: {', '.join(MEASURES)}")
        if aggregation not in get_args(Aggregation):
            raise ValueError(f"aggregation is {aggregation!r}; accepted: {', '.join(get_args(Aggregation))}")
        self.from_counts = name in OVERLAP_RATIOS and rules == "plain"
        if aggregation == "pooled" and not self.from_counts:
            raise ValueError(f"{name} under {rules} rules is no ratio of counts; accepted for pooled: plain overlap")
        self.name = name
        self.aggregation = aggregation
        self.threshold = threshold
        self.rules = rules

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """The rows of a batch: values (n, 1), or counts (B, 4) for "pooled"."""
        prob, target = _main_maps(y_pred, y)
        cases, slices = len(prob), (batch_to_slices(prob), batch_to_slices(target))
        if self.aggregation in ("case", "pooled") and self.from_counts:
            counts = per_slice(self._counts, *slices).view(cases, -1, len(Counts._fields)).sum(1)
            return counts if self.aggregation == "pooled" else self._ratio(counts)[:, None]
        values = per_slice(self._values, *slices)
        if self.aggregation == "case":
            values = values.view(cases, -1).nanmean(1)
        return values[:, None]

    def aggregate(self) -> Tensor:
        """The measure, a scalar; NaN where no value is defined.

        Raises:
            ValueError: before the first call.
        """
        rows = self._rows()
        return self._ratio(rows.sum(0)) if self.aggregation == "pooled" else rows.nanmean()

    @property
    def count(self) -> int:
        """How many slices or cases the figure rests on, undefined ones left out ("pooled": all cases)."""
        return int((~self._rows()[:, 0].isnan()).sum())

    def _counts(self, prob: Tensor, target: Tensor) -> Tensor:
        return torch.stack(counts_at(*prepare_maps(prob, target), self.threshold), dim=1)

    def _ratio(self, counts: Tensor) -> Tensor:
        return OVERLAP_RATIOS[self.name](Counts(*counts.unbind(-1)))

    def _values(self, prob: Tensor, target: Tensor) -> Tensor:
        values = measure(self.name, prob, target, threshold=self.threshold, rules=self.rules)
        if self.aggregation == "positive_slice":
            values = values.masked_fill(~(target > 0.5).flatten(1).any(1), torch.nan)
        return values


class DiceOverThresholds(_MapMetric):
    """Mean or max over 256 thresholds of the set's mean Dice curve, as the Inf-Net tables report.

    Inputs as `SegmentationMetric`; the mean curve is over slices.

    Args:
        statistic: "mean" or "max".
        rules: "infnet_toolbox" (what those tables were made with) or "plain".

    Raises:
        ValueError: for unknown names, and as `SegmentationMetric` when called.
    """

    def __init__(self, statistic: Literal["mean", "max"] = "max", rules: Rules = "infnet_toolbox") -> None:
        super().__init__()
        check_rules(rules)
        if statistic not in ("mean", "max"):
            raise ValueError(f"statistic is {statistic!r}; accepted: mean, max")
        self.statistic = statistic
        self.rules = rules

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """The curves of a batch, (slices, 256)."""
        prob, target = (batch_to_slices(maps) for maps in _main_maps(y_pred, y))
        return per_slice(lambda p, t: dice_over_thresholds(p, t, rules=self.rules), prob, target)

    def aggregate(self) -> Tensor:
        """The statistic, a scalar.

        Raises:
            ValueError: before the first call.
        """
        mean, maximum = mean_and_max_dice(self._rows())
        return mean if self.statistic == "mean" else maximum

    @property
    def count(self) -> int:
        """How many slices the figure rests on."""
        return len(self._rows())


class SoftDiceLossMetric(_MapMetric):
    """1 - soft Dice over everything seen as one batch: L_fusion of the paper for the whole validation set.

    A mean of batch losses depends on the batch size; this does not, so that a schedule may watch it. The
    denominator is clamped at 1e-5, as in the training loss. Inputs as `SegmentationMetric`.
    """

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """The sums of p g, p and g of each case, (B, 3)."""
        prob, target = _main_maps(y_pred, y)
        sums = per_slice(_soft_sums, batch_to_slices(prob), batch_to_slices(target))
        return sums.view(len(prob), -1, 3).sum(1)

    def aggregate(self) -> Tensor:
        """The loss, a scalar in [0, 1].

        Raises:
            ValueError: before the first call.
        """
        overlap, prob, target = self._rows().sum(0)
        return 1 - 2 * overlap / (prob + target).clamp(min=1e-5)

    @property
    def count(self) -> int:
        """How many cases the figure rests on."""
        return len(self._rows())


def _main_maps(y_pred: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """The probabilities and the mask channel of the label, plain tensors of one shape (B, 1, ...)."""
    if y is None:
        raise ValueError("y is missing; accepted: the mask, or mask and edge")
    prob, target = y_pred.as_subclass(Tensor), y.as_subclass(Tensor)[:, :1]
    if prob.shape != target.shape:
        raise ValueError(
            f"prediction {tuple(y_pred.shape)}, label {tuple(y.shape)}; accepted: one predicted channel, "
            "a label of the same size whose first channel is the mask"
        )
    check_probabilities(prob)
    return prob, target


def _soft_sums(prob: Tensor, target: Tensor) -> Tensor:
    dtype = working_dtype(prob.device)
    p, g = prob.to(dtype), target.to(dtype)
    return torch.stack([v.sum((1, 2, 3)) for v in (p * g, p, g)], dim=1)
