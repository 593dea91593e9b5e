"""Sets of trainings that a table compares: variants x seeds x folds under one budget."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from scripts.data.datalist import describe, read_datalist
from scripts.data.layouts.registry import DATALIST
from scripts.errors import UserError
from scripts.files import sha256, write_json
from scripts.training.experiment_plans import BUDGET, Experiment, Variant, read_experiment
from scripts.training.experiment_tables import Run, write_tables
from scripts.training.tables import FILES
from scripts.training.workflows import run_workflow, train_once
from scripts.version import BUNDLE, bundle_version

logger = logging.getLogger(__name__)

TRAIN, EVALUATE = "configs/train.yaml", "configs/evaluate.yaml"
RECORD, RUN_RECORD, CACHE = "experiment.json", "begun.json", "cache"


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

    The output folder holds VARIANT/seed_S/fold_F with the run and its tables, what `write_tables` makes of all runs
    there, those of other calls too, `experiment.json`, and in `cache` the preprocessed slices of all trainings. Several
    processes may fill one folder, each with other variants, seeds or folds.

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
        "datalist_sha256": sha256(listed) if (listed := Path(data) / DATALIST).exists() else None,
        "keep": ConfigParser.load_config_files([str(BUNDLE / TRAIN), *overlays, str(chosen)])["keep"],
    }
    _claim(folder, record)
    whole = read_experiment(experiment.name)
    for variant in experiment.variants:
        for seed in range(seeds):
            for fold in used:
                one = replace(variant, settings={**variant.settings, **settings})
                if _run_once(experiment, one, folder, data, chosen, seed, fold, device):
                    write_tables(folder, whole, list(_finished(folder, whole)), record)
    return write_tables(folder, whole, list(_finished(folder, whole)), record)


def _finished(folder: Path, experiment: Experiment) -> Iterator[Run]:
    """The runs that lie in a folder, in the order of the table."""
    for variant in experiment.variants:
        for summary in sorted((folder / variant.folder).glob(f"seed_*/fold_*/tables/{FILES[-1]}")):
            place = summary.parents[1]
            seed, fold = (int(part.name.split("_")[1]) for part in (place.parent, place))
            version = json.loads((place / RUN_RECORD).read_text(encoding="utf-8"))["version"]
            yield Run(variant.name, seed, fold, str(version), place)


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
    folder: Path,
    data: str,
    budget: Path,
    seed: int,
    fold: int,
    device: str | None,
) -> bool:
    """Trains and evaluates one variant with one seed on one fold, unless that was done.

    Returns:
        Whether there was anything to do.

    Raises:
        UserError: if it was begun with other files or settings.
    """
    place = folder / variant.folder / f"seed_{seed}" / f"fold_{fold}"
    files = [TRAIN, *experiment.files, *variant.files, str(budget)]
    digest = hashlib.sha256(b"".join((BUNDLE / file).read_bytes() for file in [*files, EVALUATE]))
    identity = {"files_sha256": digest.hexdigest(), "settings": variant.settings}
    begun = place / RUN_RECORD
    if not begun.exists():
        write_json(begun, {**identity, "version": bundle_version()})
    record = json.loads(begun.read_text(encoding="utf-8"))
    if {key: record[key] for key in identity} != identity:
        raise UserError(f"{place}: was begun with other config files or settings; accepted: the same, or another OUT")
    missing = not (place / "tables" / FILES[-1]).exists()
    if missing:
        logger.info(f"{variant.name}, seed {seed}, fold {fold}")
        shared = {"dataset_dir": data, "fold": fold, **({} if device is None else {"device": device})}
        weights = train_once(
            files, place / "run", seed=seed, cache_dir=str(folder / CACHE), **shared, **variant.settings
        )
        tables = {"output_dir": str(place / "tables"), "checkpoint": str(weights), "overwrite": True}
        run_workflow([TRAIN, EVALUATE], **shared, **tables)
    return missing
