"""Tables of an evaluation: a row per case, a row per slice, and the summary."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch.distributed as dist
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.data import MetaTensor
from monai.utils import convert_to_numpy

from ..data.stacks import chosen_slices
from ..files import write_atomic, write_json
from ..io.volume import spacing_lps
from ..metrics import MEASURES, json_ready, score_case, summarise
from ..metrics.classes import known_slices
from ..metrics.table import SURFACE_MEASURES
from ..settings import is_distributed
from .processes import is_main_process

logger = logging.getLogger(__name__)

WORDS = {
    "iou": "IoU",
    "sensitivity": "sensitivity",
    "precision": "precision",
    "mae": "MAE",
    "e_measure": "E-measure",
    "s_measure": "S-measure",
}
FILES = ("metrics.csv", "slices.csv", "summary.json")


class CaseTables:
    """Ignite handler of the evaluator that writes `metrics.csv`, `slices.csv` and `summary.json`.

    MONAI's `MetricsSaver` writes one file a metric, and its slice-wise Dice leaves lesion-free
    slices out. Here every case has one row with the measures of the whole case, every slice one
    row, and the summary states n and the aggregation of each figure. Slices of unknown truth are
    left out.

    Args:
        output_dir: folder of the tables.
        cases: what is evaluated, as `select_cases` gives it: "name", "patient", perhaps "slices".
        threshold: decision threshold of the probability.
        context: what the figures belong to (data set, split, fold, checkpoint, grid); kept in the
            summary.
        rules: "plain" or "infnet_toolbox", see `scripts.metrics`.
        voxel_size_known: whether the headers' voxel size is real: then volumes in ml, HD95 and
            surface Dice are measured too, the last two in cases whose known slices follow each
            other, and NaN in others. Pictures have no voxel size, and some public exports carry a
            placeholder.
    """

    maps: ClassVar[dict[int, dict[str, str]]] = {0: {}}
    """What is scored: the channel, and what its rows say beside the case."""

    def __init__(
        self,
        output_dir: str,
        cases: Sequence[Mapping[str, Any]],
        threshold: float,
        context: Mapping[str, Any],
        rules: str = "plain",
        voxel_size_known: bool = False,
    ) -> None:
        self.folder = Path(output_dir)
        self.cases = {case["name"]: case for case in cases}
        self.threshold = threshold
        self.context = dict(context)
        self.rules = rules
        self.voxel_size_known = voxel_size_known
        self.case_rows: list[dict[str, Any]] = []
        self.slice_rows: list[dict[str, Any]] = []
        self._gathered = False
        self._figures: dict[str, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Register the handler with the evaluator."""
        engine.add_event_handler(Events.STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._score)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def metrics(self) -> dict[str, float]:
        """Return `flat_figures` of the cases seen; all processes have to call it together."""
        return flat_figures(self.figures())

    def figures(self) -> dict[str, Any]:
        """Return the figures of `summary.json`, over all processes of a distributed evaluation."""
        if not self._gathered:
            self.case_rows, self.slice_rows = gather(self.case_rows), gather(self.slice_rows)
            self._figures = self._summarise()
            self._gathered = True
        return self._figures

    def _reset(self, engine: Engine) -> None:
        self.case_rows, self.slice_rows = [], []
        self._gathered = False

    def _score(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            case = self.cases[batch["name"]]  # several cases may be parts of one volume
            positions = chosen_slices(case, output["image"])
            spacing = self._spacing(output["label"])
            for channel, said in self.maps.items():
                one = {key: output[key].as_tensor()[channel : channel + 1] for key in ("pred", "label")}
                known = positions[known_slices(one["label"])[positions].cpu().numpy()]
                if not len(known):
                    continue
                stacked = bool((np.diff(known) == 1).all())  # else slices that lie apart would touch
                row, slices = score_case(
                    *(one[key][..., known] for key in ("pred", "label")),
                    threshold=self.threshold,
                    name=case["name"],
                    patient=case.get("patient"),
                    spacing=spacing,
                    surface=spacing is not None and stacked,
                    rules=self.rules,  # type: ignore[arg-type]
                )
                if spacing is not None and not stacked:
                    row |= dict.fromkeys(SURFACE_MEASURES, math.nan)
                self.case_rows.append({"case": row["case"], **said, **row})
                self.slice_rows += [
                    {**record, **said, "slice": int(position)} for record, position in zip(slices, known, strict=True)
                ]

    def _spacing(self, label: MetaTensor) -> list[float] | None:
        if not self.voxel_size_known or label.meta.get("picture", False):
            return None
        return list(spacing_lps(convert_to_numpy(label.affine).astype(np.float64)))

    def _summarise(self) -> dict[str, Any]:
        return summarise(self.case_rows, self.slice_rows)

    def _write(self, engine: Engine) -> None:
        figures = self.figures()
        if not is_main_process():
            return
        write_atomic(self.folder / FILES[0], pd.DataFrame(self.case_rows).set_index("case").to_csv)
        write_atomic(self.folder / FILES[1], pd.DataFrame(self.slice_rows).set_index("case").to_csv)
        write_json(self.folder / FILES[2], json_ready({**self.context, "figures": figures}))
        n = figures["case"]["dice"]["n"]
        logger.info(f"Dice: {in_words(figures)}; means over {n} cases; tables in {self.folder}")


class TableMetric(Metric):
    """Ignite metric that attaches the tables and puts their figures into `state.metrics`."""

    def __init__(self, tables: CaseTables) -> None:
        self.tables = tables
        super().__init__()

    def attach(self, engine: Engine, *arguments: Any, **options: Any) -> None:
        """Register the tables and the metric with the evaluator."""
        self.tables.attach(engine)
        super().attach(engine, *arguments, **options)

    def reset(self) -> None:
        """Do nothing: the tables begin anew by themselves."""

    def update(self, output: Any) -> None:
        """Do nothing: the tables take the cases themselves."""

    def compute(self) -> dict[str, float]:
        """Return the figures by name."""
        return self.tables.metrics()

    def completed(self, engine: Engine, name: str) -> None:
        """Put every figure into `state.metrics`; `name`, MONAI's key metric, is one of them."""
        engine.state.metrics.update(self.compute())


def flat_figures(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the measures of `summarise` as AGGREGATION_MEASURE: mean or pooled ratio."""
    means = {
        f"{part}_{name}": figures[part][name]["mean"]
        for part in ("case", "slice", "positive_slice")
        for name in MEASURES
        if name in figures[part]
    }
    return means | {f"pooled_{name}": figures["pooled"][name] for name in MEASURES if name in figures["pooled"]}


def in_words(figures: Mapping[str, Any]) -> str:
    """Return the means over cases for the log, Dice first and without its name."""
    case = figures["case"]
    spread = "" if math.isnan(case["dice"]["std"]) else f" (sd {case['dice']['std']:.3f})"
    further = ", ".join(f"{word} {case[name]['mean']:.{4 if name == 'mae' else 3}f}" for name, word in WORDS.items())
    return f"{case['dice']['mean']:.3f}{spread}, {further}"


def gather(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of all processes in a distributed evaluation, each once.

    Processes that all judged the same cases were given all, see `validation_sampler`.
    """
    if not is_distributed():
        return rows
    collected: list[list[dict[str, Any]]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(collected, rows)
    judged = [{row["case"] for row in part} for part in collected]
    return rows if all(names == judged[0] for names in judged) else [row for part in collected for row in part]
