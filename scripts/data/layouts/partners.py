"""Check by sizes and affines that the label and the masks of a case belong to its image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ...errors import UserError
from ...io.grids import check_belongs
from .base import listing_error
from .case import FILE_KEYS, Case, FileKey
from .files import Header, read_size


def grid_problems(case: Case, headers: Mapping[FileKey, Header]) -> list[str]:
    """Return one line for each file of a case that does not belong to its image.

    Args:
        case: what the files are called.
        headers: of the image, and of the other files as far as they could be read.
    """
    problems = []
    image = headers["image"].grid(case["image"])
    for key in FILE_KEYS:
        if key != "image" and key in headers:
            try:
                check_belongs(headers[key].grid(case[key]), image)
            except UserError as error:
                problems.append(str(error))
    return problems


def check_partners(cases: Iterable[Case], source: str) -> None:
    """Make sure, before any work, that every label and mask of some cases belongs to its image.

    Args:
        cases: with paths that can be opened; one without label or mask is not looked at.
        source: the data set, for the headline where there are several offenders.

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
        return grid_problems(case, {key: read_size(Path(case[key])) for key in keys})
    except UserError as error:
        return [str(error)]
