"""Compute several measures of a validation in one handler."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler

from ..metrics import SegmentationMeasures
from ..metrics.cumulative import Aggregation


class MeasuresHandler(IgniteMetricHandler):
    """Ignite metric that puts several measures into `state.metrics`, each as PREFIX + its name.

    A handler per measure would build the histogram of the E-measure and count the overlap several
    times. Everything is computed on the device of the predictions and read once per epoch.
    Processes of a distributed run all have the figures of the whole set.

    Args:
        names: some of `scripts.metrics.MEASURES`.
        output_transform: takes predictions and labels out of the evaluator's output, two lists of
            (1, H, W) or (1, X, Y, Z).
        prefix: what the names in `state.metrics` begin with.
        aggregation: "slice", "positive_slice", "case" or "pooled", see `SegmentationMeasures`.
    """

    def __init__(
        self,
        names: Sequence[str],
        output_transform: Callable[[Any], Any],
        prefix: str = "val_mean_",
        aggregation: Aggregation = "slice",
    ) -> None:
        self.prefix = prefix
        measures = SegmentationMeasures(names, aggregation)
        super().__init__(metric_fn=measures, output_transform=output_transform, save_details=False)

    @torch.no_grad()
    def iteration_completed(self, engine: Engine) -> None:
        """Take a batch as a whole, where ignite would hand over its items one by one."""
        predictions, labels = self._output_transform(engine.state.output)
        if len(predictions):  # what is measured may be known of other cases only
            self.update((predictions, labels))

    def compute(self) -> dict[str, float]:
        """Return the measures by their name in `state.metrics`, NaN where none is defined."""
        found = self.metric_fn.aggregate()
        values = torch.stack(list(found.values())).cpu().tolist()
        return {self.prefix + name: value for name, value in zip(found, values, strict=True)}

    def completed(self, engine: Engine, name: str) -> None:
        """Put every measure into `state.metrics`; `name`, that of the handler, is left out."""
        engine.state.metrics.update(self.compute())
