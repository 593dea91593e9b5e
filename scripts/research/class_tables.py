"""The tables of an evaluation by classes: one row a case and class, and the summary."""

import logging
from typing import Any, ClassVar

import pandas as pd
from ignite.engine import Engine

from ..files import write_atomic, write_json
from ..metrics import json_ready, summarise
from ..training.processes import is_main_process
from ..training.tables import CaseTables, flat_figures, in_words
from ..transforms.items import CLASSES

logger = logging.getLogger(__name__)

FILES = ("classes.csv", "summary.json")


class ClassTables(CaseTables):
    """`CaseTables` for maps of classes: writes `classes.csv` and `summary.json`.

    Prediction and label hold one binary map a class, (3, X, Y, Z). Each class but the background is
    evaluated as if it were alone; all measures, `mae`, `e_measure` and `s_measure` too, are those
    of these binary maps. The summary has the figures of `summarise` for each class, with n and
    aggregation. Arguments as `CaseTables`.
    """

    maps: ClassVar = {number: {"class": name} for number, name in enumerate(CLASSES) if number}

    def metrics(self) -> dict[str, float]:
        """Return the figures of every class, named as "ground_glass_case_dice"."""
        return {
            f"{name}_{key}": value
            for name, figures in self.figures().items()
            for key, value in flat_figures(figures).items()
        }

    def _summarise(self) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for name in CLASSES[1:]:
            parts = ([row for row in rows if row["class"] == name] for rows in (self.case_rows, self.slice_rows))
            figures[name] = summarise(*parts)
        return figures

    def _write(self, engine: Engine) -> None:
        figures = self.figures()
        if not is_main_process():
            return
        write_atomic(self.folder / FILES[0], pd.DataFrame(self.case_rows).set_index("case").to_csv)
        write_json(self.folder / FILES[1], json_ready({**self.context, "figures": figures}))
        for name, found in figures.items():
            logger.info(f"Dice of {name}: {in_words(found)}; means over {found['case']['dice']['n']} cases")
        logger.info(f"tables in {self.folder}")
