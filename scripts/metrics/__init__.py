"""The measures of Hu et al. 2022 as functions, as MONAI metrics and as tables."""

from .cumulative import SegmentationMeasures, SegmentationMetric, SoftDiceLossMetric
from .functional import MEASURES, dice, measure, measure_all
from .table import json_ready, score_case, summarise

__all__ = ["MEASURES", "SegmentationMeasures", "SegmentationMetric", "SoftDiceLossMetric", "dice"]
__all__ += ["json_ready", "measure", "measure_all", "score_case", "summarise"]
