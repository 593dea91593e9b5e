"""`python -m scripts experiment NAME DATA OUT`: trains and evaluates a named set of variants, writes the table."""

from __future__ import annotations

from ..errors import UserError
from ..research.experiments import read_experiment, run_experiment


def experiment(
    name: str,
    data: str,
    out: str,
    budget: str | None = None,
    seeds: int = 1,
    folds: str = "all",
    variants: str = "all",
    steps: int | None = None,
    device: str | None = None,
    processes: int = 1,
) -> None:
    """Trains and evaluates what a published table compares, under one budget, and writes the table with its spread.

    A run that was stopped is started again with the same command and goes on where it was.

    Args:
        name: an experiment of configs/experiments: table2, table3, table4, table5, infnet, cares,
            fv, recipe, mixed, paper.
        data: prepared data set, see `prepare`.
        out: folder of the runs and tables.
        budget: overlay that sets width, size and schedule of every training; one for a CPU unless
            given.
        seeds: number of seeds.
        folds: validation folds, such as 0,1; or all.
        variants: rows of the table, separated by commas; or all.
        steps: optimizer steps of every training in place of the budget's, for a first look.
        device: cpu, cuda, mps; the first that is there unless given.
        processes: how many trainings run side by side, on a GPU that one of them does not fill.
    """
    try:
        chosen = None if folds == "all" else [int(fold) for fold in folds.split(",")]
    except ValueError:
        raise UserError(f"--folds is {folds!r}; expected: all, or numbers such as 0,1") from None
    rows = [] if variants == "all" else [row.strip() for row in variants.split(",")]
    table = run_experiment(read_experiment(name, rows), data, out, budget, seeds, chosen, steps, device, processes)
    print(table.read_text(encoding="utf-8"))
    print(f"{table}; table.csv, runs.csv, cases.csv and curves.png beside it")
