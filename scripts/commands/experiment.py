"""`python -m scripts experiment NAME DATA OUT`: a published table, trained and evaluated anew."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from ..errors import UserError
from .options import Data, Device, separated


def _names(incomplete: str) -> list[str]:
    """List the experiments for shell completion."""
    from ..research.experiment_config import experiment_names

    return [name for name in experiment_names() if name.startswith(incomplete)]


def experiment(
    name: Annotated[str, Argument(help="A file of configs/experiments, such as table2.", autocompletion=_names)],
    data: Data,
    out: Annotated[Path, Argument(help="Folder of the runs and tables.")],
    budget: Annotated[
        list[str] | None,
        Option(
            help="Overlays with width, size and schedule, layered in order, separated by commas; may be repeated; "
            "default: the experiment's, for a CPU."
        ),
    ] = None,
    seeds: Annotated[int, Option(help="Number of seeds.")] = 1,
    folds: Annotated[list[str] | None, Option(help="Validation folds such as 0,1; default: all.")] = None,
    variants: Annotated[
        list[str] | None, Option(help="Rows of the table, separated by commas; may be repeated; default: all.")
    ] = None,
    steps: Annotated[int | None, Option(help="Optimizer steps of every training; default: the budget's.")] = None,
    device: Device = None,
    processes: Annotated[int, Option(help="Number of trainings in parallel, on a GPU that one does not fill.")] = 1,
    teacher: Annotated[
        str | None, Option(help="Weights that teach, for rows that learn from some; {fold} in their path is the fold.")
    ] = None,
    protocol: Annotated[
        Literal["within", "test", "cross"],
        Option(help="Evaluate on the validation folds, on DATA's test cases, or on those of other data sets."),
    ] = "within",
) -> None:
    """Train and evaluate the variants of a published table.

    Writes the table with its spread. All variants get one budget. A run that was stopped resumes
    with the same command.
    """
    numbers, rows = ([] if chosen == ["all"] else chosen for chosen in (separated(folds), separated(variants)))
    try:
        wanted = [int(fold) for fold in numbers] or None
    except ValueError:
        raise UserError(f"--folds is {','.join(numbers)!r}; expected: all, or numbers such as 0,1") from None
    from ..research.experiments import read_experiment, run_experiment

    table = run_experiment(
        read_experiment(name, rows),
        str(data),
        str(out),
        separated(budget),
        seeds,
        wanted,
        steps,
        device,
        processes,
        teacher,
        protocol,
    )
    print(table.read_text(encoding="utf-8"))
    print(f"{table}; table.csv, runs.csv, cases.csv and curves.png beside it")
