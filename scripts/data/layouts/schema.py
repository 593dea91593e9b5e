"""Reads datalist.json, written by `prepare` or by hand, and says what is wrong with it."""

import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, NotRequired, cast

from pydantic import AfterValidator, with_config
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from ...errors import UserError
from ...files import read_json
from ...io.reading import scan_name
from ...schema import STRICT, check_content, problems_error
from .case import FILE_KEYS, LIST_NAMES, Case, CaseFiles, Datalist, Index, Split, Text, all_cases, new_datalist
from .patients import spelled_alike


@with_config(STRICT)
class ListedCase(CaseFiles):
    """A case as it is written: what is left out is found in its image's name, or unknown."""

    name: NotRequired[Text]
    patient: NotRequired[Text | None]
    fold: NotRequired[Index | None]


def _with_label(case: ListedCase) -> ListedCase:
    if "label" not in case and not case.get("lesion_free"):
        raise ValueError("a label, or lesion_free true")
    return case


LabelledCase = Annotated[ListedCase, AfterValidator(_with_label)]


@with_config(STRICT)
class DatalistFile(TypedDict, total=False):
    """The content of datalist.json as it is written, see `Datalist`."""

    name: str
    layout: str
    test_name: str
    split: Split
    folds: Index
    seed: int
    synthetic: bool
    warnings: list[Text]
    training: list[LabelledCase]
    test: list[LabelledCase]
    unlabeled: list[ListedCase]


def parse_datalist(path: Path) -> Datalist:
    """Read a list of cases. Only `image`, and `label` unless unlabelled, are required of a case.

    Raises:
        UserError: no JSON, or every entry that is not as it should be.
    """
    try:
        content = read_json(path, "utf-8-sig")  # Windows puts a mark before it
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); expected: what `prepare` writes") from error
    check_content(DatalistFile, content, path)
    if not any(content.get(name) for name in LIST_NAMES):
        raise UserError(f"{path}: no cases; expected: lists of them as {', '.join(LIST_NAMES)}")
    datalist = _with_defaults(content, path.resolve().parent)
    if problems := _name_problems(all_cases(datalist)):
        raise problems_error(path, problems)
    return datalist


def _with_defaults(content: dict[str, Any], folder: Path) -> Datalist:
    lists: dict[str, list[Case]] = {
        key: [_case_with_defaults(entry, folder) for entry in content.get(key, [])] for key in LIST_NAMES
    }
    folds = {case["fold"] for case in lists["training"]} - {None}
    known: dict[str, Any] = {"name": folder.name, "folds": len(folds), **content, **lists}
    return new_datalist(**known)


def _case_with_defaults(entry: dict[str, Any], folder: Path) -> Case:
    """Fill a case; backslashes in paths become slashes unless such a name exists.

    A patient gets one spelling: of two, one could be in training and the other in validation.
    """
    windows = {
        key: entry[key] for key in FILE_KEYS if "\\" in entry.get(key, "") and not os.path.exists(folder / entry[key])
    }
    entry = {**entry, **{key: path.replace("\\", "/") for key, path in windows.items()}}
    patient = spelled_alike(entry.get("patient") or "") or None
    return cast(Case, {"name": scan_name(Path(entry["image"])), "fold": None, **entry, "patient": patient})


def _name_problems(cases: list[Case]) -> list[str]:
    """A name becomes a folder: it must be one, and only one case's."""
    names = Counter(case["name"] for case in cases)
    problems = [f"duplicate case name '{name}'" for name, times in sorted(names.items()) if times > 1]
    unfit = [name for name in names if "/" in name or "\\" in name or name in (".", "..")]
    return problems + [f"case name '{name}'; expected: a name that a folder can have" for name in unfit]
