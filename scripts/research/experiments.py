"""Sets of trainings that a table compares: variants x seeds x folds under one budget."""

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from ..data.datalist import MASKS, describe, digest_masks, fold_numbers, read_datalist
from ..data.layouts.case import DATALIST, Datalist
from ..errors import UserError
from ..files import UNFINISHED, digest, read_json, sha256, write_json
from ..inference.metadata import read_metadata
from ..messages import some
from ..settings import usable_device
from ..training.tables import FILES
from ..version import BUNDLE, bundle_version
from .distillation import teacher_of_fold
from .experiment_config import BUDGET, Experiment, Protocol, Variant, read_experiment
from .experiment_tables import Run, write_tables
from .parallel_runs import in_parallel
from .priors import describe_prior
from .workflows import run_workflow, train_once

logger = logging.getLogger(__name__)

TRAIN, EVALUATE = "configs/train.yaml", "configs/evaluate.yaml"
RECORD, RUN_RECORD, LOG = "experiment.json", "begun.json", "log.txt"
TEACHER = "teacher_sha256"


def run_experiment(
    experiment: Experiment,
    dataset_dir: str,
    output_dir: str,
    budget: Sequence[str] = (),
    seeds: int = 1,
    folds: Sequence[int] | None = None,
    steps: int | None = None,
    device: str | None = None,
    processes: int = 1,
    teacher: str | None = None,
    protocol: Protocol = "within",
) -> Path:
    """Train and evaluate every variant and write the table; resume what an earlier call left.

    The output folder holds VARIANT/seed_S/fold_F with the run and its tables, what `write_tables`
    makes of all runs there, those of other calls too, and `experiment.json`. Several
    processes may fill one folder, each with other variants, seeds or folds.

    Args:
        experiment: what is compared.
        dataset_dir: prepared data set.
        output_dir: folder of the whole.
        budget: overlays in place of the experiment's own, layered in order.
        seeds: number of seeds, from 0 on.
        folds: validation folds; None: all of them.
        steps: optimizer steps of every training in place of the budget's.
        device: where networks work; None: the first that is there.
        processes: how many trainings run in parallel; each one's output is in `log.txt` of its
            folder then.
        teacher: weights that teach the variants that learn from some, see `teacher_of_fold`. Soft
            maps are kept in `soft_maps` of the folder, for all variants. For a multi-class network
            they give the prior.
        protocol: see `Protocol`.

    Returns:
        The path of `table.md`.

    Raises:
        UserError: for other data, masks, settings or teachers than the folder or one of its runs
            began with, steps where the budget counts epochs, a variant without its teacher, or as
            the trainings do.
    """
    folder = Path(output_dir).resolve()
    data = str(Path(dataset_dir).resolve())
    datalist = read_datalist(data)
    check_protocol(datalist, protocol)
    every = fold_numbers(datalist["training"])
    used = every if folds is None else sorted(set(folds))
    if not used or not set(used) <= set(every) or seeds < 1 or processes < 1:
        found = f"folds {used}, {seeds} seeds, {processes} processes"
        raise UserError(f"{found}; expected: folds of {every}, 1 seed or more, 1 process or more")
    usable_device(device)
    chosen = _budget(budget or [experiment.budget], steps)
    whole = read_experiment(experiment.name)
    planned = _planned(whole, chosen, steps)
    _check_teachers([planned[variant.name] for variant in experiment.variants], teacher, used)
    record = {
        "experiment": experiment.name,
        "data": describe(data),
        "budget": " + ".join(path.name for path in chosen) + ("" if steps is None else f", steps {steps}"),
        "datalist_sha256": sha256(listed) if (listed := Path(data) / DATALIST).exists() else None,
        MASKS: digest_masks(datalist, data),
        "keep": _said([TRAIN, *whole.files, *map(str, chosen)])["keep"],
        "protocol": protocol,
    }
    _claim(folder, record)
    _finished(folder, planned.values(), teacher)  # what no table can hold is refused before anything is trained
    runs = [
        _Run(planned[variant.name], folder, data, seed, fold, device, teacher, protocol)
        for variant in experiment.variants
        for seed in range(seeds)
        for fold in used
    ]
    missing = {run.place / LOG: run for run in runs if not run.has_ended}
    for _ in map(_Run.__call__, missing.values()) if processes == 1 else in_parallel(missing, processes):
        write_tables(folder, whole, _finished(folder, planned.values(), teacher), record)
    return write_tables(folder, whole, _finished(folder, planned.values(), teacher), record)


def check_protocol(datalist: Datalist, protocol: Protocol) -> None:
    """Refuse a protocol for which a data set has no test cases; UserError."""
    labelled = [case for case in datalist["test"] if "label" in case]
    if protocol != "within" and not labelled:
        raise UserError(f"--protocol {protocol}: no test cases; expected: `prepare` with --test, 14/2/4 or --test-data")
    if protocol == "cross" and not datalist["test_name"]:
        raise UserError("--protocol cross: no test cases of another data set; expected: `prepare --test-data`")


@dataclass(frozen=True)
class _Training:
    """How one variant is trained and evaluated, with its config files layered in order."""

    variant: Variant
    files: list[str]
    settings: dict[str, Any]
    evaluation: list[str]

    @cached_property
    def is_taught(self) -> bool:
        """Return whether the config files have a teacher, or weights that give the prior."""
        return self.sees_prior or "teacher" in _said(self.files)

    @cached_property
    def sees_prior(self) -> bool:
        """Return whether the config files have a prior."""
        return "prior" in _said(self.files)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Return what the runs of one row share: the config files without their comments."""
        return {"config_sha256": digest([_said(self.files), _said(self.evaluation)]), "settings": self.settings}

    def taught_by(self, teacher: str | None, fold: int) -> str | None:
        """Return the SHA-256 of the weights that teach a fold, or the prior that is no weights."""
        if teacher is None or not self.is_taught:
            return None
        if self.sees_prior:
            return describe_prior(teacher, fold)
        return str(read_metadata(teacher_of_fold(teacher, fold))["sha256"])

    def check(self, place: Path, teacher: str | None, fold: int) -> str:
        """Return the version that a run was begun with; refuse another configuration or teacher."""
        record = read_json(place / RUN_RECORD)
        if {key: record.get(key) for key in self.identity} != self.identity:
            found = "was begun with another configuration"
            raise UserError(f"{place}: {found}; expected: the same, or another OUT")
        taught_by = self.taught_by(teacher, fold)
        if taught_by is not None and record.get(TEACHER, taught_by) != taught_by:  # earlier versions did not record it
            found = f"was begun with another teacher than --teacher {teacher} names for fold {fold}"
            raise UserError(f"{place}: {found}; expected: the same for every call, or another OUT")
        return str(record["version"])


@dataclass(frozen=True)
class _Run:
    """One training of a variant and its evaluation, with one seed on one fold."""

    training: _Training
    folder: Path
    data: str
    seed: int
    fold: int
    device: str | None
    teacher: str | None
    protocol: Protocol

    @property
    def place(self) -> Path:
        return self.folder / self.training.variant.folder / f"seed_{self.seed}" / f"fold_{self.fold}"

    @property
    def has_ended(self) -> bool:
        return (self.place / "tables" / FILES[-1]).exists()

    def __call__(self) -> None:
        training, place = self.training, self.place
        if self.has_ended:
            return  # another process has been here
        if not (place / RUN_RECORD).exists() or _holds_records_only(place):
            taught_by = training.taught_by(self.teacher, self.fold)
            write_json(place / RUN_RECORD, {**training.identity, TEACHER: taught_by, "version": bundle_version()})
        training.check(place, self.teacher, self.fold)
        logger.info(f"{training.variant.name}, seed {self.seed}, fold {self.fold}")
        shared: dict[str, Any] = {"dataset_dir": self.data, "fold": self.fold}
        if self.device is not None:
            shared["device"] = self.device
        taught = {"teacher": self.teacher, "soft_maps": str(self.folder / "soft_maps")} if training.is_taught else {}
        if training.sees_prior:  # by the evaluation too
            taught, shared = {}, {**shared, "prior": self.teacher}
        weights = train_once(training.files, place / "run", seed=self.seed, **shared, **taught, **training.settings)
        tables = {"output_dir": str(place / "tables"), "checkpoint": str(weights), "overwrite": True}
        if self.protocol != "within":
            tables["split"] = "test"
        run_workflow(training.evaluation, **shared, **tables)


def _planned(experiment: Experiment, budget: Sequence[Path], steps: int | None) -> dict[str, _Training]:
    """Return how each variant is trained, by its name."""
    length = {} if steps is None else {"steps": steps}
    evaluation = [TRAIN, EVALUATE, *experiment.evaluation]
    return {
        one.name: _Training(
            one, [TRAIN, *experiment.files, *one.files, *map(str, budget)], {**one.settings, **length}, evaluation
        )
        for one in experiment.variants
    }


def _check_teachers(trainings: Sequence[_Training], teacher: str | None, folds: Sequence[int]) -> None:
    """Refuse variants without a teacher, one that none of them has, and weights that are absent."""
    taught = [training for training in trainings if training.is_taught]
    if bool(taught) != (teacher is not None):
        found = f"--teacher {teacher}, and {some([one.variant.name for one in taught]) or 'no variant'} with a teacher"
        raise UserError(f"{found}; expected: --teacher WEIGHTS, with {{fold}} for the fold, for variants that have one")
    for training in taught:
        for fold in folds:
            training.taught_by(teacher, fold)


def _said(files: Sequence[str]) -> dict[str, Any]:
    """Return config files layered in order; relative ones lie in the bundle."""
    return dict(ConfigParser.load_config_files([str(BUNDLE / file) for file in files]))


def _finished(folder: Path, planned: Iterable[_Training], teacher: str | None) -> list[Run]:
    """Return the runs that have ended, in the table's order; refuse what one table cannot hold."""
    runs = []
    for training in planned:
        for summary in sorted((folder / training.variant.folder).glob(f"seed_*/fold_*/tables/{FILES[-1]}")):
            place = summary.parents[1]
            named = re.fullmatch(r"seed_(\d+)/fold_(\d+)", f"{place.parent.name}/{place.name}")
            if named:  # else somebody's copy
                seed, fold = map(int, named.groups())
                runs.append(Run(training.variant.name, seed, fold, training.check(place, teacher, fold), place))
    return runs


def _budget(names: Sequence[str], steps: int | None) -> list[Path]:
    """Return a budget's files, the user's own or the bundle's; `steps` replaces their steps."""
    overlays = dict(map(_overlay, names))
    if steps is not None and (steps < 1 or not any("steps" in settings for settings in overlays.values())):
        found = f"--steps {steps} with {' + '.join(map(str, overlays))}"
        raise UserError(f"{found}; expected: 1 or more, with a budget that has `steps`")
    return list(overlays)


def _overlay(name: str) -> tuple[Path, dict[str, Any]]:
    """Return the file that a budget's name stands for, and its settings; refuse one without."""
    path = next((path.resolve() for path in (Path(name), BUNDLE / name) if path.is_file()), None)
    if path is None:
        raise UserError(f"--budget {name}: no such file; expected: an overlay such as {BUDGET}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        content = None
    if path.suffix not in (".yaml", ".yml", ".json") or not isinstance(content, dict):
        raise UserError(f"--budget {path}: no settings in YAML or JSON; expected: an overlay such as {BUDGET}")
    return path, content


def _holds_records_only(folder: Path) -> bool:
    """Whether nothing of a training is in a folder: a refused one leaves records and a log."""
    for _, folders, files in os.walk(folder):  # unlike `rglob` it passes over what another process removes
        folders[:] = [name for name in folders if not name.startswith(UNFINISHED)]
        if not all(name in (RECORD, RUN_RECORD, LOG) or name.startswith(UNFINISHED) for name in files):
            return False
    return True


def _claim(folder: Path, record: Mapping[str, Any]) -> None:
    """Mark a folder as that of an experiment; several processes may do so at once."""
    path = folder / RECORD
    if folder.is_file():
        raise UserError(f"{folder}: is a file; expected: a new folder, or this experiment's own")
    present = [one for one in folder.iterdir() if not one.name.startswith(UNFINISHED)] if folder.exists() else []
    if path.exists():  # asked after the folder was listed: another process may have written it in between
        began = {"protocol": "within", MASKS: record.get(MASKS), **read_json(path)}  # up to 0.16 and 0.29 without
        changed = [key for key in record if began.get(key) != record[key]]
        if changed and not _holds_records_only(folder):
            found = f"began with another {', another '.join(changed)}"
            raise UserError(f"{path}: {found}; expected: what it began with, or another OUT")
        if not changed:
            return
    elif present:
        raise UserError(f"{folder}: holds something else; expected: a new folder, or this experiment's own")
    write_json(path, record)
