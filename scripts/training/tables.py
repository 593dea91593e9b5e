"""The tables of an evaluation: one row a case, one row a slice, and the summary."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.data import MetaTensor

from scripts.data.slices import chosen_slices
from scripts.files import write_atomic, write_json
from scripts.metrics import json_ready, score_case, summarise
from scripts.settings import flag
from scripts.training.processes import is_distributed, is_main_process

logger = logging.getLogger(__name__)

FILES = ("metrics.csv", "slices.csv", "summary.json")


class CaseTables:
    """Ignite handler of the evaluator that writes `metrics.csv`, `slices.csv` and `summary.json`.

    MONAI's `MetricsSaver` writes one file a metric, and its slice-wise Dice leaves lesion-free slices out. Here every
    case has one row with the measures of the whole case, every slice one row, and the summary states n and the
    aggregation of each figure.

    Args:
        output_dir: folder of the tables.
        cases: what is evaluated, as `select_cases` gives it: "name", "patient", perhaps "slices".
        threshold: probability from which on a voxel is infection.
        context: what the figures belong to (data set, split, fold, checkpoint, grid); kept in the summary.
        rules: "plain" or "infnet_toolbox", see `scripts.metrics`.
        voxel_size_known: whether the headers' voxel size is real: then volumes in ml, HD95 and surface Dice are
            measured too. Pictures have none, and some public exports carry a placeholder.
    """

    def __init__(
        self,
        output_dir: str,
        cases: Sequence[Mapping[str, Any]],
        threshold: float,
        context: Mapping[str, Any],
        rules: str = "plain",
        voxel_size_known: bool | str = False,
    ) -> None:
        self.folder = Path(output_dir)
        self.cases = {case["name"]: case for case in cases}
        self.threshold = threshold
        self.context = dict(context)
        self.rules = rules
        self.voxel_size_known = flag(voxel_size_known)
        self.case_rows: list[dict[str, Any]] = []
        self.slice_rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Registers the handler with the evaluator."""
        engine.add_event_handler(Events.STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._score)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _reset(self, engine: Engine) -> None:
        self.case_rows, self.slice_rows = [], []

    def _score(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output, strict=True):
            case = self.cases[batch["name"]]  # several cases may be parts of one volume
            positions = chosen_slices(case, output["image"])
            row, slices = score_case(
                output["pred"].as_tensor()[..., positions],
                output["label"].as_tensor()[..., positions],
                threshold=self.threshold,
                name=case["name"],
                patient=case.get("patient"),
                spacing=self._spacing(output["label"]),
                surface=self._spacing(output["label"]) is not None,
                rules=self.rules,  # type: ignore[arg-type]
            )
            for record, position in zip(slices, positions, strict=True):
                record["slice"] = int(position)
            self.case_rows.append(row)
            self.slice_rows.extend(slices)

    def _spacing(self, label: MetaTensor) -> list[float] | None:
        if not self.voxel_size_known or label.meta.get("picture", False):
            return None
        return [float(mm) for mm in label.pixdim]

    def _write(self, engine: Engine) -> None:
        case_rows, slice_rows = gather(self.case_rows), gather(self.slice_rows)
        if not is_main_process():
            return
        figures = summarise(case_rows, slice_rows)
        write_atomic(self.folder / FILES[0], pd.DataFrame(case_rows).set_index("case").to_csv)
        write_atomic(self.folder / FILES[1], pd.DataFrame(slice_rows).set_index("case").to_csv)
        write_json(self.folder / FILES[2], json_ready({**self.context, "figures": figures}))
        dice = figures["case"]["dice"]
        spread = "" if math.isnan(dice["std"]) else f" (sd {dice['std']:.3f})"
        logger.info(f"Dice: {dice['mean']:.3f}{spread}, mean over {dice['n']} cases; tables in {self.folder}")


def gather(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows of all processes in a distributed evaluation."""
    if not is_distributed():
        return rows
    collected: list[list[dict[str, Any]]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(collected, rows)
    return [row for part in collected for row in part]
