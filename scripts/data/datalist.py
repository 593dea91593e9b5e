"""The list of cases of a data set: from folders or datalist.json, by split and fold."""

import json
import logging
import os
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import UserError
from ..files import digest, sha256
from ..io.reading import scan_files
from ..messages import some
from .held_out import read_held_out, refuse_held_out
from .layouts.build import build_datalist
from .layouts.case import (
    DATALIST,
    FILE_KEYS,
    LIST_NAMES,
    MORE_LABELS,
    Case,
    Datalist,
    FileKey,
    all_cases,
    all_with_paths,
    with_paths,
    without_files,
)
from .layouts.checks import check_partners
from .layouts.patients import spelled_alike
from .layouts.registry import recognise
from .layouts.schema import parse_datalist
from .overlaps import beginnings, twins
from .splits import check_images_disjoint, check_patient_disjoint, check_test_disjoint, patients_of, shared_images

Split = Literal["training", "validation", "test", "unlabeled", "all"]

Fold = int | str | Sequence[str] | None
"""What is left out of training to validate on: a fold of the list, cases by their names, or
nothing."""

EDGES: tuple[FileKey, ...] = ("edge",)

SAME_LIST = ("name", "folds", "seed", "split")
SAME_FOLD = ("fold", "validation_cases", "validation_patients")
"""What `describe` says alike of one list of cases, and of one fold of it."""

MASKS = "masks_sha256"
"""Key of `digest_masks` in the record of what may go on with the same masks only."""

_logger = logging.getLogger(__name__)


def read_datalist(dataset_dir: str | os.PathLike[str]) -> Datalist:
    """Read and check the list of a data set; its warnings are logged.

    Args:
        dataset_dir: folder with datalist.json, or a data set as it unzips (then with the defaults
            of `prepare`).

    Returns:
        The list, with paths relative to `dataset_dir`.

    Raises:
        UserError: no data set; a malformed datalist.json; files that do not exist, all of them
            listed.
    """
    folder = Path(dataset_dir)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected: the folder of a data set")
    if (folder / DATALIST).is_file():
        datalist = parse_datalist(folder / DATALIST)
        _check_files(folder, datalist)
    else:
        _, root = recognise(folder.resolve())
        datalist = json.loads(_prepare_in_memory(folder.resolve(), _fingerprint(root)))
    for warning in datalist["warnings"]:
        _logger.warning("%s: %s", datalist["name"], warning)
    return datalist


def select_cases(
    dataset_dir: str | os.PathLike[str],
    split: Split = "all",
    fold: Fold = None,
    exclude_patients: Collection[str] = (),
    labelled: bool = False,
    pseudo: bool | None = None,
    masks: bool = True,
    may_be_empty: bool = False,
    more_labels: bool = False,
    held_out: str | None = None,
    edges: bool = False,
) -> list[Case]:
    """Choose the cases of a split, with absolute paths.

    Args:
        dataset_dir: see `read_datalist`.
        split: "training" (all labelled cases but those of `fold`), "validation" (those of `fold`),
            "test", "unlabeled", "all" (labelled or not). Neither unlabelled cases nor training
            cases with pseudo labels are of patients or images of the validation fold or the test
            cases, nor unlabelled ones that may show them under other names, see `SHARED`.
        fold: validation fold, or the names of the cases that take its place; None for none. It is
            not looked at for "all" and "test".
        exclude_patients: patients to leave out, for instance those of a test set that lies
            elsewhere.
        labelled: leave out cases without label, as an evaluation must.
        pseudo: True: only cases whose label a network made, False: only others; None: both.
        masks: whether labels and masks must belong to their images; False where the images alone
            are read.
        may_be_empty: whether no unlabelled case, or validation without a fold, is no case instead
            of an error: a training does without.
        more_labels: keep the masks that a training may use beside `label`, "finer" and "second".
        held_out: list of what must not be chosen, see `read_held_out`.
        edges: keep the published "edge", which every case must have then.

    Raises:
        UserError: unknown split or fold, nothing left, a held-out case, a case without a published
            edge where `edges` asks for it, a patient or an image in training and in validation or
            test, or a label or mask that cannot be read or does not belong to its image
            (`check_belongs`).
    """
    if split not in get_args(Split):
        raise UserError(f"split: {split!r}; expected: {', '.join(get_args(Split))}")
    datalist = read_datalist(dataset_dir)
    fold = None if split in ("all", "test") else fold
    validation = _fold_cases(datalist, fold, dataset_dir)
    left_out = {case["name"] for case in validation}
    by_people = [case for case in datalist["training"] if not case.get("pseudo")]
    training = [case for case in by_people if case["name"] not in left_out]
    if datalist["split"] == "patient":
        check_patient_disjoint(training, validation)
    check_test_disjoint(by_people, datalist["test"], datalist["split"])
    folder = Path(dataset_dir).resolve()
    check_images_disjoint(training, validation, "validation", folder)
    check_images_disjoint(by_people, datalist["test"], "test", folder)
    unseen = validation + datalist["test"]
    training += _without_unseen([case for case in datalist["training"] if case.get("pseudo")], unseen, folder)
    lists: dict[str, list[Case]] = {
        "training": training,
        "validation": validation,
        "test": datalist["test"],
        "unlabeled": _without_unseen(datalist["unlabeled"], unseen, folder),
        "all": all_cases(datalist),
    }
    chosen = _without_patients(lists[split], set(map(spelled_alike, exclude_patients)))
    if labelled:
        chosen = [case for case in chosen if "label" in case]
    if pseudo is not None:
        chosen = [case for case in chosen if case.get("pseudo", False) == pseudo]
    if not chosen and not (may_be_empty and (split == "unlabeled" or (split == "validation" and fold is None))):
        raise UserError(_nothing(dataset_dir, split, fold, datalist))
    if held_out is not None:
        refuse_held_out(chosen, read_held_out(held_out), f"{dataset_dir}: split {split}")
    if edges and (without := [case["name"] for case in chosen if "edge" not in case]):
        raise UserError(
            f"{dataset_dir}: {len(without)} of {len(chosen)} cases have no published edge ({some(without)}); expected: "
            "data sets with them, such as COVID-SemiSeg, or edges from the masks"
        )
    unused = (*(() if more_labels else MORE_LABELS), *(() if edges else EDGES))
    chosen = [without_files(case, unused) for case in chosen]
    cases = [with_paths(case, lambda _, path: str(folder / path)) for case in chosen]
    if masks:
        check_partners(cases, str(dataset_dir))
    return cases


def describe(dataset_dir: str | os.PathLike[str], fold: Fold = None, split: Split = "training") -> dict[str, Any]:
    """Return what checkpoint metadata and tables say about the data of a run: JSON values.

    Arguments are those of `select_cases`. A fold of other data means nothing for "all" and "test".

    Raises:
        UserError: see `read_datalist`; a fold or a case that does not exist.
    """
    datalist = read_datalist(dataset_dir)
    try:
        validation = _fold_cases(datalist, fold, dataset_dir)
    except UserError:
        if split not in ("all", "test"):
            raise
        fold, validation = None, []
    general = {key: datalist[key] for key in ("name", "layout", "split", "folds", "seed", "synthetic", "warnings")}
    pseudo = sum(case.get("pseudo", False) for case in datalist["training"])
    return {
        **general,
        **({"test_name": datalist["test_name"]} if datalist["test_name"] else {}),
        "fold": fold,
        "training_cases": len(datalist["training"]) - len(validation) - pseudo,
        **({"pseudo_labelled_cases": pseudo} if pseudo else {}),
        "validation_cases": len(validation),
        "validation_patients": sorted(patients_of(validation)),
    }


def digest_masks(datalist: Datalist, dataset_dir: str | os.PathLike[str]) -> str:
    """Return one SHA-256 of all masks of a list, which changes when one is corrected in place."""
    masks = [key for key in FILE_KEYS if key != "image"]
    paths = sorted({case[key] for case in all_cases(datalist) for key in masks if key in case})
    return digest([sha256(file) for path in paths for file in scan_files(Path(dataset_dir) / path)])


def fold_numbers(cases: Sequence[Case]) -> list[int]:
    """Return the folds of cases, in rising order; cases of no fold count for none."""
    return sorted({case["fold"] for case in cases if case["fold"] is not None})


def _fold_cases(datalist: Datalist, fold: Fold, dataset_dir: str | os.PathLike[str]) -> list[Case]:
    if fold is None:
        return []
    cases = datalist["training"]
    values: list[Any] = [case["fold"] if isinstance(fold, int) else case["name"] for case in cases]
    wanted: list[Any] = [*fold] if isinstance(fold, list | tuple) else [fold]
    if not wanted or isinstance(fold, bool) or not all(one in values for one in wanted):
        numbers = ", ".join(map(str, fold_numbers(cases))) or "no number, the cases have no folds"
        others = "names of training cases; null to train on all; --split all to evaluate weights on other data"
        raise UserError(f"{dataset_dir}: fold {fold!r}; expected: {numbers}; or {others}")
    return [case for case, value in zip(cases, values, strict=True) if value in wanted]


def _without_patients(cases: list[Case], patients: Collection[str], others: frozenset[str] = frozenset()) -> list[Case]:
    """Leave out cases of patients, and those whose `beginnings` are among others."""
    known = [case for case in cases if case["patient"] is None or case["patient"] not in patients]
    kept = [case for case in known if others.isdisjoint(beginnings(case))]
    if len(kept) < len(cases):
        left_out = sorted(patients_of(cases) - patients_of(kept))
        _logger.info("%d cases of the patients %s are left out", len(cases) - len(kept), ", ".join(left_out))
    return kept


def _without_unseen(cases: list[Case], unseen: list[Case], folder: Path) -> list[Case]:
    """Leave out what shows, or may show, patients or images of unseen cases."""
    shown = {case["name"] for case in shared_images(cases, unseen, folder)}
    others = [case for case in cases if case["name"] not in shown]
    return _without_patients(others, patients_of(unseen), twins(map(beginnings, unseen)))


def _nothing(dataset_dir: str | os.PathLike[str], split: str, fold: Fold, datalist: Datalist) -> str:
    counts = ", ".join(f"{name} {len(datalist[name])}" for name in LIST_NAMES)
    hint = "; validation needs a fold" if split == "validation" and fold is None else ""
    return f"{dataset_dir}: no cases for split {split} with fold {fold}{hint}; there are: {counts}"


def _check_files(folder: Path, datalist: Datalist) -> None:
    paths = dict.fromkeys(case[key] for case in all_cases(datalist) for key in FILE_KEYS if key in case)
    # Of `os.path`, because methods of Path fail for a name that is too long.
    missing = [folder / path for path in paths if not os.path.isfile(folder / path)]
    if missing:
        lines = [
            f"{path}: a link to {os.readlink(path)}, which is not there" if os.path.islink(path) else str(path)
            for path in missing
        ]
        raise UserError(f"{folder / DATALIST}: {len(missing)} of {len(paths)} files are missing:", *lines)


def _fingerprint(folder: Path) -> int:
    """Changes when a file under the folder does, so that a list in memory is made anew."""
    stats = ((path.as_posix(), path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return hash(tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


@lru_cache(maxsize=4)
def _prepare_in_memory(folder: Path, fingerprint: int) -> str:
    _logger.info("%s has no %s (state %x): reading all of it, `prepare` does so once", folder, DATALIST, fingerprint)
    datalist, _ = build_datalist([folder])
    return json.dumps(all_with_paths(datalist, lambda _, path: Path(path).relative_to(folder).as_posix()))
