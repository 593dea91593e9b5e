"""Reads datalist.json, written by `prepare` or by hand, and says what is wrong with it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

from ...errors import UserError
from ...io.reading import scan_name
from .base import listing_error
from .case import FILE_KEYS, LIST_NAMES, SPLITS, Case, Datalist, all_cases, new_datalist

_TEXT_KEYS = (*FILE_KEYS, "name", "intensity")
_INDEX_KEYS = ("slices", "label_codes")


def parse_datalist(path: Path) -> Datalist:
    """Read a list of cases. Only `image`, and `label` unless unlabelled, are required of a case.

    Raises:
        UserError: no JSON, or every entry that is not as it should be.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))  # Windows puts a mark before it
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); expected: what `prepare` writes") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}; expected: an object with {', '.join(LIST_NAMES)}")
    problems = _list_problems(content)
    for name in LIST_NAMES if not problems else ():
        for index, entry in enumerate(content.get(name, [])):
            problems += [f"{name}[{index}]: {text}" for text in _case_problems(entry, labelled=name != "unlabeled")]
    if not problems:
        datalist = _with_defaults(content, path.resolve().parent)
        problems = _name_problems(all_cases(datalist))
    if problems:
        raise listing_error(f"{path}: {len(problems)} problems:", problems)
    return datalist


def _list_problems(content: dict[str, Any]) -> list[str]:
    """Rejects lists under other names, which would be left out without a word."""
    problems = [
        f"{name}: not a list; expected: one" for name in LIST_NAMES if not isinstance(content.get(name, []), list)
    ]
    for key, value in content.items():
        holds_cases = isinstance(value, list) and any(isinstance(entry, dict) for entry in value)
        if holds_cases and key not in LIST_NAMES:
            problems.append(f"{key}: not a list that is known; expected: {', '.join(LIST_NAMES)}")
    split, warnings = content.get("split", "patient"), content.get("warnings", [])
    if split not in SPLITS:
        problems.append(f"split: {split!r}; expected: {', '.join(SPLITS)}")
    if not isinstance(warnings, list) or not all(map(_is_text, warnings)):
        problems.append(f"warnings: {warnings!r}; expected: a list of text")
    if not problems and not any(content.get(name) for name in LIST_NAMES):
        problems.append(f"no cases; expected: lists of them as {', '.join(LIST_NAMES)}")
    return problems


def _case_problems(entry: object, labelled: bool) -> list[str]:
    if not isinstance(entry, dict):
        return [f"{entry!r}; expected: an object with image, label, patient, fold"]
    free = entry.get("lesion_free", False)
    required = ("image", "label") if labelled and free is not True else ("image",)
    problems = [f"no {key}" for key in required if key not in entry]
    problems += [f"{key} {entry[key]!r}; expected: text" for key in _TEXT_KEYS if not _is_text(entry.get(key, "-"))]
    if not isinstance(free, bool):
        problems.append(f"lesion_free {free!r}; expected: true or false")
    patient, fold = entry.get("patient"), entry.get("fold")
    if patient is not None and not _is_text(patient):
        problems.append(f"patient {patient!r}; expected: text or null")
    if fold is not None and not _is_index(fold):
        problems.append(f"fold {fold!r}; expected: a whole number from 0 or null")
    for key in _INDEX_KEYS:
        if key in entry and not _is_index_list(entry[key]):
            problems.append(f"{key} {entry[key]!r}; expected: a list of whole numbers from 0")
    return problems


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_index_list(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_index(element) for element in value)


def _with_defaults(content: dict[str, Any], folder: Path) -> Datalist:
    lists: dict[str, list[Case]] = {
        key: [_case_with_defaults(entry, folder) for entry in content.get(key, [])] for key in LIST_NAMES
    }
    folds = {case["fold"] for case in lists["training"]} - {None}
    known: dict[str, Any] = {"name": folder.name, "folds": len(folds), **content, **lists}
    return new_datalist(**known)


def _case_with_defaults(entry: dict[str, Any], folder: Path) -> Case:
    """Check a case; backslashes in paths become slashes unless such a name exists."""
    windows = {
        key: entry[key] for key in FILE_KEYS if "\\" in entry.get(key, "") and not (folder / entry[key]).exists()
    }
    entry = {**entry, **{key: path.replace("\\", "/") for key, path in windows.items()}}
    return cast(Case, {"name": scan_name(Path(entry["image"])), "patient": None, "fold": None, **entry})


def _name_problems(cases: list[Case]) -> list[str]:
    """A name becomes a folder: it must be one, and only one case's."""
    names = Counter(case["name"] for case in cases)
    problems = [f"duplicate case name '{name}'" for name, times in sorted(names.items()) if times > 1]
    unfit = [name for name in names if "/" in name or "\\" in name or name in (".", "..")]
    return problems + [f"case name '{name}'; expected: a name that a folder can have" for name in unfit]
