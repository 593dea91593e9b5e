"""Tables of an experiment: rows as CSV, means with spread as CSV and Markdown, curves."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import t

from ..files import read_json, write_atomic, write_text
from ..training.history import draw_line
from ..training.tables import FILES
from .class_tables import ClassTables
from .experiment_config import Experiment
from .experiment_text import MEASURES, PARTS, markdown
from .workflows import FINISHED

VALIDATED = {
    "val_positive_dice": "Dice of slices with lesion",
    "val_case_dice": "Dice of volumes",
}
"""Columns of a run's history of which the first one that there is is drawn."""
KEY = ["variant", "seed", "fold"]


@dataclass(frozen=True)
class Run:
    """A training that has ended and was evaluated.

    Attributes:
        version: of the bundle that it was begun with.
        place: its folder, with `run` and `tables`.
    """

    variant: str
    seed: int
    fold: int
    version: str
    place: Path


def write_tables(folder: Path, experiment: Experiment, runs: Sequence[Run], record: Mapping[str, Any]) -> Path:
    """Write what the runs say, see `write_table`; for an experiment with classes a folder for each.

    Returns:
        The path of `table.md`, which holds the text of all classes.
    """
    if not experiment.classes:
        return write_table(folder, experiment, runs, record)
    tables = [write_table(folder / name, experiment.of_class(name), runs, record, name) for name in experiment.classes]
    return write_text(folder / "table.md", "\n".join(table.read_text(encoding="utf-8") for table in tables))


def write_table(
    folder: Path,
    experiment: Experiment,
    runs: Sequence[Run],
    record: Mapping[str, Any],
    of_class: str | None = None,
) -> Path:
    """Write what the runs say of one class, or of infection.

    Args:
        folder: receives `runs.csv` (a row a run, with the weights' SHA-256 and the machine),
            `cases.csv` (a row a case of a run), `table.csv`, `table.md` and `curves.png`.
        experiment: what is compared.
        runs: the runs that there are, in the order of the table.
        record: what the experiment was run on.
        of_class: class of an evaluation by classes.

    Returns:
        The path of `table.md`.
    """
    tables = [_cases(run, of_class) for run in runs]
    rows = pd.DataFrame([_row(run, own, of_class) for run, own in zip(runs, tables, strict=True)])
    cases = pd.concat(tables, ignore_index=True)
    order = list(dict.fromkeys(run.variant for run in runs))
    published = pd.DataFrame(
        [{"variant": one.name, **{f"published_{key}": value for key, value in one.published.items()}}
         for one in experiment.variants]
    ).set_index("variant")  # fmt: skip
    table = compare(rows, cases, order).join(published)
    write_atomic(folder / "runs.csv", rows.set_index("variant").to_csv)
    write_atomic(folder / "cases.csv", cases.set_index("variant").to_csv)
    write_atomic(folder / "table.csv", table.to_csv)
    write_atomic(folder / "curves.png", lambda path: draw_curves(runs, of_class).print_png(path))
    return write_text(folder / "table.md", markdown(experiment, table, rows, record))


def _cases(run: Run, of_class: str | None) -> pd.DataFrame:
    file = run.place / "tables" / (FILES[0] if of_class is None else ClassTables.file)
    cases, names = pd.read_csv(file), ["case", "patient"]
    # As text: "1.1" and "1.10" are two cases and no number, "NA" is a name.
    cases[names] = pd.read_csv(file, usecols=names, dtype=str, keep_default_na=False)[names].replace("", None)
    if of_class is not None:
        cases = cases[cases[ClassTables.column] == of_class].reset_index(drop=True)
    for position, key in enumerate(KEY):
        cases.insert(position, key, getattr(run, key))
    return cases


def _row(run: Run, cases: pd.DataFrame, of_class: str | None) -> dict[str, Any]:
    """Return means over the cases of a validation fold, with n; of Dice also over `PARTS`."""
    figures = read_json(run.place / "tables" / FILES[-1])["figures"]
    figures = figures if of_class is None else figures[of_class]
    finished = read_json(run.place / "run" / FINISHED)
    found: dict[str, Any] = {key: getattr(run, key) for key in KEY}
    found |= {"version": run.version, "weights_sha256": finished["sha256"]}
    machine = finished.get("machine")  # absent before version 0.9.1
    found["machine"] = machine and "{device}, {threads} threads, torch {torch}, {platform}".format(**machine)
    found["cases"] = figures["case"]["dice"]["n"]
    for part, prefix in (("case", ""), ("positive_slice", "slice_")):
        for measure in MEASURES:
            value = figures[part].get(measure, {}).get("mean")
            found[f"{prefix}{measure}"] = math.nan if value is None else value
    found["all_slice_dice"] = figures["slice"]["dice"]["mean"]
    for kind, chosen in (("volume", cases["n_slices"] > 1), ("picture", cases["n_slices"] == 1)):
        found[f"{kind}_dice"] = cases["dice"][chosen].mean()
    return found


def compare(runs: pd.DataFrame, cases: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """Return a row per variant: mean, spread, difference from the first one by patient.

    Runs share the training data of their folds, so their spread says little of what another patient
    would show; patients are what is drawn.

    Args:
        runs: a row a run: "variant", "seed", "fold", measures in [0, 1].
        cases: a row a case of a run: beside these "case", "patient" (absent where unknown), "dice".
        order: names of the variants; the first is what the others are compared with.

    Returns:
        "runs", for each measure its mean and MEASURE_sd over the runs (n - 1, NaN of one run) in
        percent; "difference" of Dice from the first variant, the mean over "difference_n" patients
        (cases where they are unknown), each over its cases, seeds and folds that both variants
        have, with its 95 % interval, "difference_low" and "difference_high" (NaN of fewer than
        three), see `mean_over_patients`, and "detectable": whether that leaves out 0.
    """
    by_run = runs.set_index(KEY).sort_index()
    by_case = cases.assign(unit=cases["patient"].fillna(cases["case"])).set_index(["variant", *KEY[1:], "case", "unit"])
    rows = []
    for name in order:
        own = by_run.loc[name]
        row: dict[str, Any] = {"variant": name, "runs": len(own)}
        for measure in [name for name in (*MEASURES, *PARTS) if name in own]:
            row[measure], row[f"{measure}_sd"] = 100 * own[measure].mean(), 100 * own[measure].std()
        paired = 100 * (by_case.loc[name]["dice"] - by_case.loc[order[0]]["dice"]).dropna()
        row["difference"], half, row["difference_n"] = mean_over_patients(paired)
        row["difference_low"], row["difference_high"] = row["difference"] - half, row["difference"] + half
        row["detectable"] = abs(row["difference"]) > half
        rows.append(row)
    return pd.DataFrame(rows).set_index("variant")


def mean_over_patients(paired: pd.Series) -> tuple[float, float, int]:
    """Return the mean over patients, half of its 95 % interval by Student's t, and their number.

    Where one training judges each patient it says what other patients would show. Where several do,
    by their seeds or on test cases, it also says what other trainings would: one moves all of its
    patients together, so variances are clustered by patients and by trainings (Cameron, Gelbach and
    Miller, J Bus Econ Stat 29, 2011), none smaller than by either alone. The fewer of both, less
    one, give the degrees of freedom: of two trainings hardly anything is detectable.

    Args:
        paired: differences, with the levels "seed", "fold" and "unit" (the patient).

    Returns:
        Each patient weighs the same, by the mean of its differences. Half the width is NaN for
        fewer than three patients.
    """
    patients = paired.groupby(level="unit").mean()
    count = len(patients)
    mean = float(patients.mean())
    if count < 3:
        return mean, math.nan, count
    variance, clusters = patients.var() / count, count
    if paired.groupby(level=["unit", *KEY[1:]]).ngroups > count:
        patient, training = ["unit"], KEY[1:]
        share = (paired - mean) / (count * paired.groupby(level=patient).transform("size"))
        by_patient, by_training, by_both = (
            _clustered(share, levels) for levels in (patient, training, [*patient, *training])
        )
        variance = max(by_patient, by_training, by_patient + by_training - by_both)
        clusters = min(count, len(paired.groupby(level=training)))
    return mean, float(t.ppf(0.975, clusters - 1)) * math.sqrt(variance), count


def _clustered(share: pd.Series, levels: list[str]) -> float:
    """Return the variance of a sum whose parts are independent between groups of these levels."""
    sums = share.groupby(level=levels).sum()
    return float(len(sums) / (len(sums) - 1) * (sums**2).sum())


def draw_curves(runs: Sequence[Run], of_class: str | None = None) -> FigureCanvasAgg:
    """Draw training loss and validation Dice over the epochs, a line per run.

    The Dice is that of `of_class` where it is given. Colours tell the variants apart or, of one
    variant, the folds. Losses of variants with other heads are sums of other terms: each can be
    followed, they cannot be compared.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    several = len({run.variant for run in runs}) > 1
    names = [run.variant if several else f"fold {run.fold}" for run in runs]
    order = list(dict.fromkeys(names))
    validated = {f"val_{of_class}_dice": f"Dice of {of_class.replace('_', ' ')}"} if of_class else VALIDATED
    for position, (run, name) in enumerate(zip(runs, names, strict=True)):
        history = pd.read_csv(run.place / "run" / "history.csv")
        index = order.index(name)
        style = {"color": f"C{index % 10}", "linestyle": ("-", "--", ":")[index // 10 % 3], "linewidth": 1}
        label = None if name in names[:position] else name
        dice = next(name for name in validated if name in history)
        drawn = {"train_loss": "training loss", dice: f"validation: {validated[dice]}"}
        for axis, (column, title) in zip(panels, drawn.items(), strict=True):
            points = history[["epoch", column]].dropna()
            draw_line(axis, points["epoch"], points[column], label=label, **style)
            axis.set(xlabel="epoch", title=title)
    panels[1].set_ylim(0, 1)
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize="x-small", ncols=6, loc="outside lower center")
    return FigureCanvasAgg(figure)
