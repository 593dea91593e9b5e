"""Check by sizes and affines that the label and the masks of a case belong to its image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ...errors import UserError
from ...io.grids import Grid, check_belongs
from ...io.reading import read_grid
from .base import listing_error
from .case import FILE_KEYS, Case, FileKey


def grid_problems(grids: Mapping[FileKey, Grid]) -> list[str]:
    """Return one line for each file of a case that does not belong to its image."""
    problems = []
    for key in FILE_KEYS[1:]:
        if key in grids:
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
        raise listing_error(f"{source}: {len(problems)} files do not belong to their images:", list(problems))


def _problems(case: Case) -> list[str]:
    keys = [key for key in FILE_KEYS if key in case]
    if len(keys) < 2:
        return []
    try:
        return grid_problems({key: read_grid(Path(case[key]), decode=False) for key in keys})
    except UserError as error:
        return [str(error)]
