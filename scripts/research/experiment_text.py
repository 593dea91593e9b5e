"""What `table.md` of an experiment says: the table, and what is needed to understand a figure."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from ..messages import markdown_table, wrapped
from ..training.tables import WORDS
from .experiment_config import Experiment

MEASURES = ("dice", *WORDS)
COLUMNS = {name: word[0].upper() + word[1:] for name, word in WORDS.items()}
"""What `table.md` shows beside Dice, with its heading; rows that were made before version 0.9.2
have no IoU."""
PARTS = {
    "slice_dice": "slices with lesion",
    "all_slice_dice": "all slices",
    "volume_dice": "volumes",
    "picture_dice": "pictures",
}
"""Of what else the mean of Dice is taken. Of all slices, 1 where neither mask nor truth marks any,
it is the published code's; rows that were made up to version 0.16 do not have it."""
KEPT = {
    "best": "The validation fold also chose the epoch, so these are no test figures.",
    "last": "The last epoch counts: the validation fold chose nothing.",
}
KEPT_FOR_TEST = {
    "best": "A validation fold chose the epoch, the test cases chose nothing.",
    "last": "The last epoch counts: no case chose anything.",
}


def table_lines(table: pd.DataFrame, published: bool) -> list[str]:
    """Return the Markdown lines of a table: heading, rule, one line per variant.

    Percentages have one decimal. MAE has two: most pixels are background, so that variants differ
    in the second.

    Args:
        table: as `compare` makes it, perhaps with the "published_" columns of the source; or read
            from `table.csv`.
        published: whether a column holds the source's Dice.
    """
    kinds = ("volume_dice", "picture_dice") if not table[["volume_dice", "picture_dice"]].isna().any(axis=None) else ()
    parts = ("slice_dice", *(("all_slice_dice",) if "all_slice_dice" in table else ()), *kinds)
    columns = {name: title for name, title in COLUMNS.items() if name in table and not table[name].isna().any()}
    columns |= {name: f"Dice of {PARTS[name]}" for name in parts}
    shown = ["published"] if published else []
    header = ["", "runs", "Dice", *shown, "difference", *columns.values()]
    lines: list[list[str]] = []
    for name, row in table.iterrows():
        said = "" if name == table.index[0] else _difference(row)
        dice = _with_spread(row["dice"], row["dice_sd"])
        cells = [str(name), str(row["runs"]), dice, *([_published(row)] if shown else []), said]
        cells += [_with_spread(row[one], row[f"{one}_sd"], decimals=2 if one == "mae" else 1) for one in columns]
        lines.append(cells)
    return markdown_table(header, lines)


def markdown(experiment: Experiment, table: pd.DataFrame, runs: pd.DataFrame, record: Mapping[str, Any]) -> str:
    """Return the text of `table.md`.

    Args:
        experiment: what is compared.
        table: as `compare` makes it, with the "published_" columns of the source.
        runs: a row a run.
        record: what the experiment was run on, as `experiment.json` holds it.
    """
    data = record["data"]
    lines = [f"# {experiment.title}", "", *table_lines(table, bool(experiment.source))]
    lines += ["", wrapped(_conditions(table, runs, record)), ""]
    if experiment.source:
        alike = data["split"] == experiment.split
        comparable = "alike in how cases were split, not otherwise" if alike else "not comparable"
        text = f"Published ({experiment.source}): {experiment.protocol}. The columns are {comparable}."
        lines += [wrapped(text), ""]
    lines += [
        wrapped(
            f"Budget {record['budget']}; version {'; '.join(sorted(set(runs['version'])))}"
            f"{''.join(f'; {machine}' for machine in sorted(set(runs['machine'].dropna())))}. Every run and the SHA-256"
            " of its weights: runs.csv; every case: cases.csv."
        ),
        *("\n" + wrapped(f"* {name} is no row: {why}", "  ") for name, why in experiment.left_out.items()),
        *("\n" + wrapped(f"* {warning}", "  ") for warning in data["warnings"]),
        "",
    ]
    return "\n".join(lines)


def _conditions(table: pd.DataFrame, runs: pd.DataFrame, record: Mapping[str, Any]) -> str:
    """Say of what the figures are means, and what chose the weights."""
    data, first, within = record["data"], table.index[0], record["protocol"] == "within"
    judged = runs.groupby(["variant", "seed"])["cases"]  # of some not every fold has ended yet
    cases = int((judged.sum() if within else judged.max()).max())
    where = "a validation fold" if within else f"the test cases (protocol {record['protocol']})"
    sha = record["datalist_sha256"]
    listed = f"datalist.json\N{NO-BREAK SPACE}{sha[:12]}" if sha else "no datalist.json"
    tested = data["name"] if within else data.get("test_name") or data["name"]
    trained = "" if tested == data["name"] else f", trained on {data['name']}"
    kept = (KEPT if within else KEPT_FOR_TEST)[record["keep"]]
    apart = within and data["split"] == "patient"  # the folds judge other patients
    several = runs["seed"].nunique() > 1 or (not apart and runs["fold"].nunique() > 1)
    clustered = ", clustered by patients and by trainings where several judged a patient" if several else ""
    return (
        f"Ours: percent; mean and sd over the runs (seeds {_numbers(runs['seed'])}; folds {_numbers(runs['fold'])})"
        f" of the mean over the cases of {where}, on the scan's own grid; {cases} cases of {tested}{trained}, split by"
        f" {data['split']} with seed {data['seed']} ({listed}). {kept} The difference is from {first}, mean over n "
        f"patients (cases where patients are unknown), with its 95 % interval by Student's t{clustered}, not corrected "
        "for the number of rows; none is detectable where that holds 0."
    )


def _numbers(column: Iterable[int]) -> str:
    return ", ".join(str(number) for number in sorted(set(column)))


def _with_spread(mean: float, sd: float, decimals: int = 1) -> str:
    if math.isnan(mean):
        return "-"
    return f"{mean:.{decimals}f}" if math.isnan(sd) else f"{mean:.{decimals}f} ± {sd:.{decimals}f}"


def _difference(row: pd.Series) -> str:
    if math.isnan(row["difference"]):
        return "-"
    interval = f" ({row['difference_low']:+.1f} to {row['difference_high']:+.1f})" if row["difference_n"] > 2 else ""
    doubt = "" if row["detectable"] else ", none detectable"
    return f"{row['difference']:+.1f}{interval}, n = {int(row['difference_n'])}{doubt}"


def _published(row: pd.Series) -> str:
    mean, sd = row.get("published_dice", math.nan), row.get("published_dice_sd", math.nan)
    return "-" if math.isnan(mean) else f"{mean:.2f}" + ("" if math.isnan(sd) else f" ± {sd:.2f}")
