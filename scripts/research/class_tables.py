"""The tables of an evaluation by classes or targets: a row per case and map, and the summary."""

import logging
from typing import Any, ClassVar

import pandas as pd
from ignite.engine import Engine

from ..errors import UserError
from ..files import write_atomic, write_json
from ..inference.metadata_schema import INFECTION_AND_LUNGS
from ..metrics import json_ready, summarise
from ..training.processes import is_main_process
from ..training.tables import FILES, CaseTables, flat_figures, in_words
from ..transforms.items import CLASSES

logger = logging.getLogger(__name__)


class MapTables(CaseTables):
    """`CaseTables` for several maps: writes one table of cases and `summary.json`.

    Prediction and label hold one binary map each, (C, X, Y, Z). Each is evaluated as if it were
    alone; all measures, `mae`, `e_measure` and `s_measure` too, are those of this map. The summary
    has the figures of `summarise` for each, with n and aggregation. Arguments as `CaseTables`.
    """

    column: ClassVar[str]
    """What the table calls a map."""

    file: ClassVar[str]
    """The table of cases."""

    def metrics(self) -> dict[str, float]:
        """Return the figures of every map, named as "ground_glass_case_dice"."""
        return {
            f"{name}_{key}": value
            for name, figures in self.figures().items()
            for key, value in flat_figures(figures).items()
        }

    def _summarise(self) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for said in self.maps.values():
            name = said[self.column]
            parts = [[row for row in rows if row[self.column] == name] for rows in (self.case_rows, self.slice_rows)]
            if not parts[0]:
                raise UserError(f"{name}: unknown in every case; expected: cases whose truth is known")
            figures[name] = summarise(*parts)
        return figures

    def _write(self, engine: Engine) -> None:
        figures = self.figures()
        if not is_main_process():
            return
        write_atomic(self.folder / self.file, pd.DataFrame(self.case_rows).set_index("case").to_csv)
        write_json(self.folder / FILES[-1], json_ready({**self.context, "figures": figures}))
        for name, found in figures.items():
            logger.info(f"Dice of {name}: {in_words(found)}; means over {found['case']['dice']['n']} cases")
        logger.info(f"tables in {self.folder}")


class ClassTables(MapTables):
    """Tables of ground glass and consolidation: `classes.csv`."""

    column, file = "class", "classes.csv"
    maps: ClassVar = {number: {"class": name} for number, name in enumerate(CLASSES) if number}


class TargetTables(MapTables):
    """Tables of infection and lungs: `targets.csv`."""

    column, file = "target", "targets.csv"
    maps: ClassVar = {number: {"target": name} for number, name in enumerate(INFECTION_AND_LUNGS)}
