"""The curve of a run: a row per epoch as CSV, and its plot."""

import csv
import io
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor
from torch.optim import Optimizer

from ..files import write_atomic, write_text
from .processes import is_main_process

LOSSES = ("train_loss", "val_loss")
MEASURES = ("val_mean_dice", "val_mean_sensitivity", "val_mean_precision")


class History:
    """Ignite handler of the trainer: `history.csv` after every epoch, `curve.png` at the end.

    Rows are part of the state that is resumed, so that the file of a resumed run is that of a whole
    one.

    Args:
        output_dir: folder of the run.
        optimizer: whose learning rate is recorded.
        evaluator: engine of the validation.
    """

    def __init__(self, output_dir: str, optimizer: Optimizer, evaluator: Engine) -> None:
        self.folder = Path(output_dir)
        self.optimizer = optimizer
        self.evaluator = evaluator
        self.rows: list[dict[str, float]] = []
        self._losses: list[Tensor] = []
        self._started = 0.0

    def attach(self, engine: Engine) -> None:
        """Register the handler with the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._append)
        engine.add_event_handler(Events.COMPLETED, self._draw)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the rows of `state_dict`; rows of epochs that are repeated leave the file."""
        self.rows = list(state["rows"])
        self._write()

    def _start(self, engine: Engine) -> None:
        self._losses = []
        self._started = time.perf_counter()

    def _collect(self, engine: Engine) -> None:
        loss = engine.state.output[0]["loss"]
        # A tensor stays on its device: reading it here would make a GPU wait at every step.
        self._losses.append(loss.detach() if isinstance(loss, Tensor) else torch.tensor(loss, dtype=torch.float64))

    def _append(self, engine: Engine) -> None:
        losses = torch.stack(self._losses).cpu().tolist() if self._losses else []
        row = {
            "epoch": engine.state.epoch,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "train_loss": sum(losses) / max(len(losses), 1),
            "seconds": round(time.perf_counter() - self._started, 1),
        }
        if self.evaluator.state.epoch == engine.state.epoch:
            row.update({name: float(value) for name, value in self.evaluator.state.metrics.items()})
        self.rows.append(row)
        self._write()

    def _write(self) -> None:
        if is_main_process():
            columns = list(dict.fromkeys(name for row in self.rows for name in row))
            text = io.StringIO()
            writer = csv.DictWriter(text, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
            write_text(self.folder / "history.csv", text.getvalue())

    def _draw(self, engine: Engine) -> None:
        if self.rows and is_main_process():
            write_atomic(self.folder / "curve.png", lambda path: draw_curve(self.rows).print_png(path))


def draw_curve(rows: list[dict[str, float]]) -> FigureCanvasAgg:
    """Draw the losses, and the validation's Dice, sensitivity and precision, over the epochs."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    panels = figure.subplots(1, 2)
    for axis, names in zip(panels, (LOSSES, MEASURES), strict=True):
        for name in names:
            points = [(row["epoch"], row[name]) for row in rows if math.isfinite(row.get(name, math.nan))]
            if points:
                draw_line(axis, *zip(*points, strict=True), label=name)
                axis.legend()
        axis.set_xlabel("epoch")
    panels[1].set_ylim(0, 1)
    return FigureCanvasAgg(figure)


def draw_line(axis: Axes, epochs: ArrayLike, values: ArrayLike, **style: Any) -> None:
    """Draw values over epochs; a single one, of which a line shows nothing, as a point."""
    axis.plot(epochs, values, marker="." if np.size(epochs) == 1 else "", **style)
