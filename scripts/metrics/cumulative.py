"""Metrics that collect over an epoch, for MONAI's engines and handlers (IgniteMetricHandler)."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from ..errors import SettingError
from .counts import OVERLAP_RATIOS, Counts, Rules, check_range, check_rules, counts_at, prepare_maps, working_dtype
from .functional import MEASURES, check_names, measure_all
from .slices import batch_to_slices, per_slice

Aggregation = Literal["slice", "positive_slice", "case", "pooled"]


class _MapMetric(CumulativeIterationMetric):
    """Rows of equal width in one buffer, which MONAI gathers over the processes.

    Called with `y_pred`, probabilities: a list of (1, H, W) or (1, X, Y, Z), or a batch (B, 1,
    ...); and `y`, the mask, or (2, ...) whose first channel is the mask (the training label: mask,
    edge). A volume's last axis counts its slices. A call reads nothing back from the device;
    whether the predictions were probabilities is checked when the figure is read: `aggregate` and
    `count` raise ValueError for others, and before the first call.
    """

    def reset(self) -> None:
        """Forget what was seen."""
        super().reset()
        self._range: tuple[Tensor, Tensor] | None = None

    def _compute_list(self, y_pred: Any, y: Any = None, **kwargs: Any) -> Any:
        if y is None or len({(*p.shape, *t.shape) for p, t in zip(y_pred, y, strict=True)}) > 1:
            return super()._compute_list(y_pred, y, **kwargs)
        maps = (torch.stack([one.detach().as_subclass(Tensor) for one in items]) for items in (y_pred, y))
        return self._compute_tensor(*maps, **kwargs)

    def _maps(self, y_pred: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return probabilities and the mask channel of the label as tensors (B, 1, ...)."""
        if y is None:
            raise ValueError("y is missing; expected: the mask, or mask and edge")
        prob, target = y_pred.as_subclass(Tensor), y.as_subclass(Tensor)[:, :1]
        if prob.shape != target.shape:
            raise ValueError(
                f"prediction {tuple(y_pred.shape)}, label {tuple(y.shape)}; expected: one predicted channel, "
                "a label of the same size whose first channel is the mask"
            )
        low, high = torch.aminmax(prob)
        if self._range is not None:
            low, high = torch.minimum(low, self._range[0]), torch.maximum(high, self._range[1])
        self._range = low, high
        return prob, target

    def _rows(self) -> Tensor:
        if self._range is not None:
            check_range(*self._range)
        rows = self.get_buffer()
        if not isinstance(rows, Tensor):
            raise ValueError(f"{type(self).__name__} has seen no prediction yet")
        return rows

    @property
    def count(self) -> int:
        """Return the number of slices or cases the figure rests on, undefined ones left out."""
        return int((~self._rows()[:, 0].isnan()).sum())


class SegmentationMeasures(_MapMetric):
    """Measures of `functional` over everything seen since the last reset, computed together.

    Called as `_MapMetric` says, each item a case. Undefined values (NaN) are left out of means.

    Args:
        names: some of `functional.MEASURES`.
        aggregation: "slice": mean over all slices (Dice of two empty masks is 1); "positive_slice":
            over those whose target is not empty; "case": mean over cases, overlap measures from the
            counts of the whole case, the others as the mean over its slices; "pooled": from the
            counts of everything.
        threshold: probability from which a pixel is lesion.
        rules: "plain" or "infnet_toolbox", see `functional`. The toolbox knows images only: a case
            is then the mean over its slices.

    Raises:
        ValueError: for unknown names; for "pooled" with a measure or rules that counts cannot give;
            when called, for more than one predicted channel or shapes that do not match.

    >>> metric = SegmentationMeasures(["dice", "mae"])
    >>> empty = torch.zeros(1, 2, 2)
    >>> _ = metric(y_pred=[torch.ones(1, 2, 2), empty], y=[torch.eye(2)[None], empty])
    >>> {name: value.item() for name, value in metric.aggregate().items()}
    {'dice': 0.8333333333333333, 'mae': 0.25}
    """

    def __init__(
        self,
        names: Sequence[str] = MEASURES,
        aggregation: Aggregation = "slice",
        threshold: float = 0.5,
        rules: Rules = "plain",
    ) -> None:
        super().__init__()
        check_rules(rules)
        check_names(names)
        if aggregation not in get_args(Aggregation):
            raise SettingError(f"aggregation is {aggregation!r}; expected: {', '.join(get_args(Aggregation))}")
        no_ratio = [name for name in names if name not in OVERLAP_RATIOS or rules != "plain"]
        if aggregation == "pooled" and no_ratio:
            raise SettingError(
                f"{', '.join(no_ratio)} under {rules} rules is no ratio of counts; expected for pooled: plain overlap"
            )
        self.names = tuple(names)
        self.aggregation = aggregation
        self.threshold = threshold
        self.rules = rules

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Return the rows of a batch: values (n, names), or counts (B, 4) for "pooled"."""
        prob, target = self._maps(y_pred, y)
        cases, slices = len(prob), (batch_to_slices(prob), batch_to_slices(target))
        if self.aggregation == "pooled":
            return self._case_counts(cases, *slices)
        values = per_slice(self._values, *slices)
        return self._case_values(cases, values, *slices) if self.aggregation == "case" else values

    def aggregate(self) -> Any:
        """Return the measures by name, scalars on the device; NaN where no value is defined."""
        rows = self._rows()
        if self.aggregation == "pooled":
            counts = Counts(*rows.sum(0))
            return {name: OVERLAP_RATIOS[name](counts) for name in self.names}
        return dict(zip(self.names, rows.nanmean(0), strict=True))

    def _values(self, prob: Tensor, target: Tensor) -> Tensor:
        """Return the measures of slices (B, 1, H, W) as (B, names); NaN for those left out."""
        found = measure_all(prob, target, names=self.names, threshold=self.threshold, rules=self.rules)
        values = torch.stack(list(found.values()), dim=1)
        if self.aggregation == "positive_slice":
            values = values.masked_fill(~(target > 0.5).flatten(1).any(1, keepdim=True), torch.nan)
        return values

    def _case_values(self, cases: int, values: Tensor, prob: Tensor, target: Tensor) -> Tensor:
        values = values.view(cases, -1, len(self.names)).nanmean(1)
        if self.rules != "plain" or not set(self.names) & set(OVERLAP_RATIOS):
            return values
        counts = Counts(*self._case_counts(cases, prob, target).unbind(1))
        for column, name in enumerate(self.names):
            if name in OVERLAP_RATIOS:
                values[:, column] = OVERLAP_RATIOS[name](counts)
        return values

    def _case_counts(self, cases: int, prob: Tensor, target: Tensor) -> Tensor:
        """Return the counts (B, 4) of cases whose slices are (B * Z, 1, H, W)."""

        def counts(p: Tensor, t: Tensor) -> Tensor:
            return torch.stack(counts_at(*prepare_maps(p, t), self.threshold), dim=1)

        return per_slice(counts, prob, target).view(cases, -1, len(Counts._fields)).sum(1)


class SegmentationMetric(SegmentationMeasures):
    """One of `SegmentationMeasures`, as MONAI's `IgniteMetricHandler` takes it.

    >>> metric = SegmentationMetric("dice")
    >>> empty = torch.zeros(1, 2, 2)
    >>> _ = metric(y_pred=[torch.ones(1, 2, 2), empty], y=[torch.eye(2)[None], empty])
    >>> metric.aggregate().item(), metric.count  # (2/3 + 1) / 2
    (0.8333333333333333, 2)
    """

    def __init__(
        self, name: str = "dice", aggregation: Aggregation = "slice", threshold: float = 0.5, rules: Rules = "plain"
    ) -> None:
        super().__init__((name,), aggregation, threshold, rules)
        self.name = name

    def aggregate(self) -> Tensor:
        """Return the measure, a scalar; NaN where no value is defined."""
        value: Tensor = super().aggregate()[self.name]
        return value


class SoftDiceLossMetric(_MapMetric):
    """1 - soft Dice over everything seen as one batch: L_fusion of a whole validation set.

    A mean of batch losses depends on the batch size; this does not, so that a schedule may watch
    it. The denominator is clamped at 1e-5, as in the training loss. Inputs as `SegmentationMetric`.
    """

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Return the sums of p g, p and g of each case, (B, 3)."""
        prob, target = self._maps(y_pred, y)
        sums = per_slice(_soft_sums, batch_to_slices(prob), batch_to_slices(target))
        return sums.view(len(prob), -1, 3).sum(1)

    def aggregate(self) -> Tensor:
        """Return the loss, a scalar in [0, 1]."""
        overlap, prob, target = self._rows().sum(0)
        return 1 - 2 * overlap / (prob + target).clamp(min=1e-5)


def _soft_sums(prob: Tensor, target: Tensor) -> Tensor:
    dtype = working_dtype(prob.device)
    p, g = prob.to(dtype), target.to(dtype)
    return torch.stack([v.sum((1, 2, 3)) for v in (p * g, p, g)], dim=1)
