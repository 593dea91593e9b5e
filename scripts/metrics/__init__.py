"""The measures of Hu et al. 2022 as functions, as MONAI metrics and as tables."""

from __future__ import annotations

from .cumulative import (
    DiceOverThresholds,
    SegmentationMeasures,
    SegmentationMetric,
    SoftDiceLossMetric,
)
from .functional import (
    MEASURES,
    dice,
    dice_over_thresholds,
    e_measure,
    iou,
    mean_absolute_error,
    mean_and_max_dice,
    measure,
    measure_all,
    precision,
    s_measure,
    sensitivity,
    specificity,
)
from .table import json_ready, score_case, summarise

__all__ = [
    "MEASURES",
    "DiceOverThresholds",
    "SegmentationMeasures",
    "SegmentationMetric",
    "SoftDiceLossMetric",
    "dice",
    "dice_over_thresholds",
    "e_measure",
    "iou",
    "json_ready",
    "mean_absolute_error",
    "mean_and_max_dice",
    "measure",
    "measure_all",
    "precision",
    "s_measure",
    "score_case",
    "sensitivity",
    "specificity",
    "summarise",
]
