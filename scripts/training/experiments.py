"""Sets of trainings that a table compares: variants x seeds x folds under one budget, and the table with its spread."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from monai.bundle import ConfigParser

from scripts.data.datalist import describe, read_datalist
from scripts.errors import UserError
from scripts.files import write_atomic, write_json
from scripts.training.tables import FILES
from scripts.training.workflows import run_workflow, train_once
from scripts.version import BUNDLE, bundle_version

logger = logging.getLogger(__name__)

EXPERIMENTS = BUNDLE / "configs/experiments"
TRAIN, EVALUATE = "configs/train.yaml", "configs/evaluate.yaml"
MEASURES = ("dice", "sensitivity", "precision", "mae", "e_measure", "s_measure")
PARTS = {"slice_dice": "slices with lesion", "volume_dice": "volumes", "picture_dice": "pictures"}
"""Of what else the mean of Dice is taken."""
RUNS, TABLE, RECORD, RUN_RECORD = "runs.csv", "table", "experiment.json", "begun.json"
BUDGET = "configs/presets/experiment_cpu.yaml"


@dataclass(frozen=True)
class Variant:
    """One row of a table.

    Attributes:
        name: what the row is called.
        files: overlays on train.yaml.
        settings: ids and values beside them.
        published: figures of the source, in percent: a measure and, as MEASURE_sd, its spread.
    """

    name: str
    files: list[str]
    settings: dict[str, Any]
    published: dict[str, float]


@dataclass(frozen=True)
class Experiment:
    """What a table compares.

    Attributes:
        name: its name.
        title: its heading.
        source: where the published figures stand; empty where there are none.
        protocol: how they were measured.
        variants: its rows, the first one is what the others are compared with.
        files: overlays that every training has.
        budget: overlay that sets width, size and schedule unless the user names another.
    """

    name: str
    title: str
    source: str
    protocol: str
    variants: list[Variant]
    files: list[str]
    budget: str


def read_experiment(name: str, chosen: Sequence[str] = ()) -> Experiment:
    """Reads an experiment of configs/experiments.

    Args:
        name: its name.
        chosen: names of variants; all of them if empty.

    Raises:
        UserError: for a name that there is not.
    """
    known = sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))
    if name not in known:
        raise UserError(f"experiment is {name!r}; accepted: {', '.join(known)}")
    content = yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8"))
    variants = [
        Variant(row, one.get("files", []), one.get("settings", {}), one.get("published", {}))
        for row, one in content["variants"].items()
    ]
    if len({_folder_name(variant.name) for variant in variants}) < len(variants):
        raise ValueError(f"{name}: variants share a folder")
    unknown = set(chosen) - {variant.name for variant in variants}
    if unknown:
        names = "; ".join(variant.name for variant in variants)
        raise UserError(f"variants {', '.join(sorted(unknown))}; accepted, separated by commas: {names}")
    kept = [variant for variant in variants if not chosen or variant.name in chosen]
    title, source, protocol = (str(content.get(key, "")) for key in ("title", "source", "protocol"))
    return Experiment(name, title, source, protocol, kept, content.get("files", []), content.get("budget", BUDGET))


def run_experiment(
    experiment: Experiment,
    dataset_dir: str,
    output_dir: str,
    budget: str | None = None,
    seeds: int = 1,
    folds: Sequence[int] | None = None,
    steps: int | None = None,
    device: str | None = None,
) -> Path:
    """Trains and evaluates every variant, and writes the table; goes on with what an earlier call left.

    The output folder holds VARIANT/seed_S/fold_F with the run and its tables, `runs.csv` (a row a run), `table.csv`,
    `table.md` and `experiment.json`.

    Args:
        experiment: what is compared.
        dataset_dir: prepared data set.
        output_dir: folder of the whole.
        budget: overlay that sets width, size and schedule of every training; None: the experiment's own.
        seeds: number of seeds, from 0 on.
        folds: validation folds; None: all of them.
        steps: optimizer steps of every training in place of the budget's.
        device: where networks work; None: the first that is there.

    Returns:
        The path of `table.md`.

    Raises:
        UserError: for other settings than the folder began with, steps where the budget counts epochs, or as the
            trainings do.
    """
    folder = Path(output_dir).resolve()
    data = str(Path(dataset_dir).resolve())
    every = sorted({case["fold"] for case in read_datalist(data)["training"] if case["fold"] is not None})
    used = every if folds is None else list(folds)
    if not used or not set(used) <= set(every) or seeds < 1:
        raise UserError(f"folds {used}, {seeds} seeds; accepted: folds of {every}, 1 seed or more")
    chosen = _budget(experiment.budget if budget is None else budget)
    settings = _length(chosen, steps)
    overlays = [str(BUNDLE / file) for file in experiment.files]
    record = {
        "experiment": experiment.name,
        "data": describe(data),
        "budget": chosen.name + "".join(f", {key} {value}" for key, value in settings.items()),
        "keep": ConfigParser.load_config_files([str(BUNDLE / TRAIN), *overlays, str(chosen)])["keep"],
        "seeds": seeds,
        "folds": used,
    }
    _claim(folder, record)
    rows = []
    for variant in experiment.variants:
        for seed in range(seeds):
            for fold in used:
                place = folder / _folder_name(variant.name) / f"seed_{seed}" / f"fold_{fold}"
                one = replace(variant, settings={**variant.settings, **settings})
                version = _run_once(experiment, one, place, data, chosen, seed, fold, device)
                row = {"variant": variant.name, "seed": seed, "fold": fold, "version": version}
                rows.append({**row, **_figures(place)})
                write_atomic(folder / RUNS, pd.DataFrame(rows).set_index("variant").to_csv)
    return write_table(experiment, pd.DataFrame(rows), folder, record)


def _budget(name: str) -> Path:
    """A budget's file: the user's own, or one of the bundle."""
    for path in (Path(name), BUNDLE / name):
        if path.is_file():
            return path.resolve()
    raise UserError(f"--budget {name}: no such file; accepted: an overlay such as {BUDGET}")


def _length(budget: Path, steps: int | None) -> dict[str, Any]:
    """What sets another number of steps than the budget's."""
    if steps is None:
        return {}
    if steps < 1 or "steps" not in yaml.safe_load(budget.read_text(encoding="utf-8")):
        raise UserError(f"--steps {steps} with {budget}; accepted: 1 or more, with a budget that has `steps`")
    return {"steps": steps}


def _claim(folder: Path, record: Mapping[str, Any]) -> None:
    path = folder / RECORD
    if path.exists():
        began = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in ("experiment", "data", "budget") if began.get(key) != record[key]]
        if changed:
            found = f"began with another {', another '.join(changed)}"
            raise UserError(f"{path}: {found}; accepted: what it began with, or another OUT")
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: holds something else; accepted: a new folder, or this experiment's own")
    write_json(path, record)


def _run_once(
    experiment: Experiment,
    variant: Variant,
    place: Path,
    data: str,
    budget: Path,
    seed: int,
    fold: int,
    device: str | None,
) -> str:
    """Trains and evaluates one variant with one seed on one fold, unless that was done.

    Returns:
        The version of the bundle that it was begun with.

    Raises:
        UserError: if it was begun with other files or settings.
    """
    files = [TRAIN, *experiment.files, *variant.files, str(budget)]
    digest = hashlib.sha256(b"".join((BUNDLE / file).read_bytes() for file in [*files, EVALUATE]))
    identity = {"files_sha256": digest.hexdigest(), "settings": variant.settings}
    begun = place / RUN_RECORD
    if not begun.exists():
        write_json(begun, {**identity, "version": bundle_version()})
    record = json.loads(begun.read_text(encoding="utf-8"))
    if {key: record[key] for key in identity} != identity:
        raise UserError(f"{place}: was begun with other config files or settings; accepted: the same, or another OUT")
    if not (place / "tables" / FILES[-1]).exists():
        logger.info(f"{variant.name}, seed {seed}, fold {fold}")
        shared = {"dataset_dir": data, "fold": fold, **({} if device is None else {"device": device})}
        weights = train_once(files, place / "run", seed=seed, **shared, **variant.settings)
        tables = {"output_dir": str(place / "tables"), "checkpoint": str(weights), "overwrite": True}
        run_workflow([TRAIN, EVALUATE], **shared, **tables)
    return str(record["version"])


def _figures(place: Path) -> dict[str, float]:
    """Mean over the cases of a run's validation fold, with n; of Dice also over what `PARTS` names."""
    figures = json.loads((place / "tables" / FILES[-1]).read_text(encoding="utf-8"))["figures"]
    found: dict[str, float] = {"cases": figures["case"]["dice"]["n"]}
    for part, prefix in (("case", ""), ("positive_slice", "slice_")):
        for measure in MEASURES:
            value = figures[part].get(measure, {}).get("mean")
            found[f"{prefix}{measure}"] = math.nan if value is None else value
    cases = pd.read_csv(place / "tables" / FILES[0])
    for kind, chosen in (("volume", cases["n_slices"] > 1), ("picture", cases["n_slices"] == 1)):
        found[f"{kind}_dice"] = cases["dice"][chosen].mean()
    return found


def _folder_name(variant: str) -> str:
    return re.sub(r"\W+", "_", variant.replace("*", "_star").replace("++", "_plus_plus")).strip("_")


def compare(runs: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """One row a variant: mean and spread over its runs, and the difference from the first variant run by run.

    Args:
        runs: a row a run: "variant", "seed", "fold", measures in [0, 1].
        order: names of the variants; the first is what the others are compared with.

    Returns:
        "runs", for each measure its mean and MEASURE_sd (n - 1, NaN of one run) in percent, "difference" of Dice from
        the first variant (paired by seed and fold), its sd and "detectable": whether it is more than twice its standard
        error, which takes three runs.
    """
    by_run = runs.set_index(["variant", "seed", "fold"]).sort_index()
    rows = []
    for name in order:
        own = by_run.loc[name]
        row: dict[str, Any] = {"variant": name, "runs": len(own)}
        for measure in [*MEASURES, *PARTS]:
            row[measure], row[f"{measure}_sd"] = 100 * own[measure].mean(), 100 * own[measure].std()
        difference = 100 * (own["dice"] - by_run.loc[order[0]]["dice"]).dropna()
        row["difference"], row["difference_sd"] = difference.mean(), difference.std()
        error = difference.std() / math.sqrt(max(len(difference), 1))
        row["detectable"] = bool(name != order[0] and len(difference) > 2 and abs(difference.mean()) > 2 * error)
        rows.append(row)
    return pd.DataFrame(rows).set_index("variant")


def write_table(experiment: Experiment, runs: pd.DataFrame, folder: Path, record: Mapping[str, Any]) -> Path:
    """Writes `table.csv` and `table.md`.

    Returns:
        The path of `table.md`.
    """
    table = compare(runs, [variant.name for variant in experiment.variants])
    published = pd.DataFrame(
        [{"variant": one.name, **{f"published_{key}": value for key, value in one.published.items()}} for one in
         experiment.variants]
    ).set_index("variant")  # fmt: skip
    joined = table.join(published)
    write_atomic(folder / f"{TABLE}.csv", joined.to_csv)
    text = _markdown(experiment, joined, runs, record)
    return write_atomic(folder / f"{TABLE}.md", lambda path: path.write_text(text, encoding="utf-8"))


def _markdown(experiment: Experiment, table: pd.DataFrame, runs: pd.DataFrame, record: Mapping[str, Any]) -> str:
    data = record["data"]
    seeds, folds = runs["seed"].nunique(), runs["fold"].nunique()
    cases = int(runs[(runs["variant"] == runs["variant"].iloc[0]) & (runs["seed"] == 0)]["cases"].sum())
    first = table.index[0]
    words = {"sensitivity": "Sensitivity", "precision": "Precision", "mae": "MAE"}
    kinds = not table[["volume_dice", "picture_dice"]].isna().any(axis=None)
    parts = [name for name in PARTS if kinds or name == "slice_dice"]
    shown = ["published"] if experiment.source else []
    header = ["", "Dice", *shown, "difference", *words.values(), *(f"Dice of {PARTS[name]}" for name in parts)]
    lines = [f"# {experiment.title}", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for name, row in table.iterrows():
        said = "" if name == first else _with_spread(row["difference"], row["difference_sd"], sign=True)
        said += "" if name == first or row["detectable"] else ", none detectable"
        cells = [str(name), _with_spread(row["dice"], row["dice_sd"]), *([_published(row)] if shown else []), said]
        cells += [_with_spread(row[measure], row[f"{measure}_sd"]) for measure in [*words, *parts]]
        lines.append("| " + " | ".join(cells) + " |")
    chosen = {
        "best": "The validation fold also chose the epoch, so these are no test figures.",
        "last": "The last epoch counts: the validation fold chose nothing.",
    }
    comparable = "not comparable" if data["split"] == "patient" else "of like protocol, other data"
    lines += [
        "",
        f"Ours: percent; mean and sd over {_number(seeds * folds, 'run')} ({_number(seeds, 'seed')} x "
        f"{_number(folds, 'fold')}) of the mean over the "
        f"cases of a validation fold, on the scan's own grid; {cases} cases of {data['name']}, split by "
        f"{data['split']}. "
        f"{chosen[record['keep']]} "
        f"The difference is from {first}, run by run; it is called detectable from twice its standard error on.",
        "",
        *(
            [f"Published ({experiment.source}): {experiment.protocol}. The columns are {comparable}.", ""]
            if shown
            else []
        ),
        f"Budget {record['budget']}, version {', '.join(sorted(set(runs['version'])))}, {platform.machine()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}.",
        *(f"\n* {warning}" for warning in data["warnings"]),
        "",
    ]
    return "\n".join(lines)


def _number(count: int, name: str) -> str:
    return f"{count} {name}" + ("" if count == 1 else "s")


def _with_spread(mean: float, sd: float, sign: bool = False) -> str:
    if math.isnan(mean):
        return "-"
    text = f"{mean:+.1f}" if sign else f"{mean:.1f}"
    return text if math.isnan(sd) else f"{text} ± {sd:.1f}"


def _published(row: pd.Series) -> str:
    mean, sd = row.get("published_dice", math.nan), row.get("published_dice_sd", math.nan)
    return "-" if math.isnan(mean) else f"{mean:.2f}" + ("" if math.isnan(sd) else f" ± {sd:.2f}")
