"""Check cases: complete files, labels and masks on their image, valid labels."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ...errors import UserError
from ...io.grids import Grid, check_belongs
from ...io.reading import read_grid, read_label
from ...transforms.items import CODE_TOLERANCE, UNKNOWN_CODE
from .base import BINARY, CLASSES, PICTURE_BINARY, Findings
from .case import FILE_KEYS, LIST_NAMES, Case, FileKey


@dataclass
class Facts:
    """What the checks learned on their way."""

    slices: dict[str, int] = field(default_factory=dict)  # number of slices by image path
    # for each slice whether the label marks infection, by label path
    infected: dict[str, NDArray[np.bool_]] = field(default_factory=dict)


def check_findings(found: Findings, title: str, facts: Facts) -> None:
    """Read every header and every label of what a layout found.

    One line for each offender is added to `found.problems`; `facts` gets what is learned.
    """
    cases = [case for name in LIST_NAMES for case in getattr(found, name)]
    for case in tqdm(cases, desc=f"checking {title}", delay=2.0, leave=False, unit="case"):
        found.problems += _check_case(case, found.label_values, facts)
    found.problems[:] = dict.fromkeys(found.problems)  # a stack's file is read once for its slices already


def _check_case(case: Case, label_values: frozenset[int], facts: Facts) -> list[str]:
    grids: dict[FileKey, Grid] = {}
    problems: list[str] = []
    keys = [key for key in FILE_KEYS if key in case]
    for key in keys:
        try:
            grids[key] = read_grid(Path(case[key]))
        except UserError as error:
            problems.append(str(error))
    if "image" in grids:
        facts.slices[case["image"]] = grids["image"].slices
        problems += grid_problems(grids)
    if len(grids) == len(keys):
        problems += _check_values(case, label_values, grids, facts)
    return problems


def _check_values(case: Case, label_values: frozenset[int], grids: dict[FileKey, Grid], facts: Facts) -> list[str]:
    """Read the label and other masks of a case whose files all have a readable header."""
    problems: list[str] = []
    finer = BINARY | {UNKNOWN_CODE}
    values_of = {"label": label_values, "classes": CLASSES, "finer": finer, "second": CLASSES, "edge": PICTURE_BINARY}
    for key, expected in values_of.items():
        if key not in case:
            continue
        path = Path(case[key])  # type: ignore[literal-required]
        scale = case.get("label_scale") if key == "label" else None
        expected = expected if scale is None else frozenset(range(scale + 1))
        try:
            values = read_label(path)
        except UserError as error:
            problems.append(str(error))
            continue
        problems += _values_problem(path, values, expected)
        if key == "label":
            stored = _in_order_of_image(values, grids["label"], grids["image"])
            marked = stored if scale is None else 2 * stored.astype(np.int64) >= scale
            facts.infected[case["label"]] = _infected_slices(marked, case.get("label_codes"))
    return problems


def _in_order_of_image(values: NDArray[Any], label: Grid, image: Grid) -> NDArray[Any]:
    """Turn a label to the stored order of its image's axes, by which slices are counted."""
    if label.affine is None or image.affine is None:
        return values
    turn = nib.orientations.ornt_transform(nib.io_orientation(label.affine), nib.io_orientation(image.affine))
    return nib.orientations.apply_orientation(values, turn)


def as_codes(values: NDArray[Any]) -> NDArray[Any]:
    """Round values within `CODE_TOLERANCE` of a whole number; leave the others."""
    if values.dtype.kind in "uib":
        return values
    with np.errstate(invalid="ignore"):
        whole = np.rint(values)
        return np.where(np.abs(values - whole) <= CODE_TOLERANCE, whole, values)


def _infected_slices(values: NDArray[Any], codes: list[int] | None) -> NDArray[np.bool_]:
    infected = values > CODE_TOLERANCE if codes is None else np.isin(as_codes(values), codes)
    return np.atleast_1d(np.any(infected, axis=(0, 1)))


def _values_problem(path: Path, values: NDArray[Any], expected: frozenset[int]) -> list[str]:
    others = values[~np.isin(as_codes(values), sorted(expected))]
    if not others.size:
        return []
    found = ", ".join(f"{value:.9g}" for value in np.unique(others)[:10])
    return [f"{path}: label values {found}; expected: {', '.join(map(str, sorted(expected)))}"]


def grid_problems(grids: Mapping[FileKey, Grid]) -> list[str]:
    """Return one line for each file of a case that is its image, or does not belong to it."""
    problems = []
    for key in FILE_KEYS[1:]:
        if key in grids:
            if os.path.samefile(grids[key].name, grids["image"].name):
                problems.append(f"{grids[key].name}: both image and {key} of a case; expected: two files")
                continue
            try:
                check_belongs(grids[key], grids["image"])
            except UserError as error:
                problems.append(str(error))
    return problems


def check_partners(cases: Iterable[Case], source: str) -> None:
    """Make sure, before any work, that every label and mask of some cases belongs to its image.

    Raises:
        UserError: a file that cannot be read, or lies elsewhere than its image, or is of another
            size; every offender with a line of its own.
    """
    distinct = {tuple(case.get(key) for key in FILE_KEYS): case for case in cases}  # slices share their stack's files
    problems = dict.fromkeys(line for case in distinct.values() for line in _problems(case))
    if len(problems) == 1:
        raise UserError(*problems)
    if problems:
        raise UserError(f"{source}: {len(problems)} files do not belong to their images:", *problems)


def _problems(case: Case) -> list[str]:
    keys = [key for key in FILE_KEYS if key in case]
    if len(keys) < 2:
        return []
    try:
        return grid_problems({key: read_grid(Path(case[key]), decode=False) for key in keys})
    except UserError as error:
        return [str(error)]
