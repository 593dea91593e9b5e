"""Cases that no training may see, by a list of patients and scans."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from ..errors import UserError
from ..io.reading import scan_name
from ..messages import some
from .layouts.case import Case, Datalist
from .layouts.patients import patient_of_scan, spelled_alike, zenodo_name
from .overlaps import beginnings, known_as, twins


def read_held_out(path: str | Path) -> frozenset[str]:
    """Read a list of names, one a line; a comment begins with a # at the start or behind a space.

    Names are spelled as `is_held_out` looks for them, see `spelled_alike`.

    Raises:
        UserError: a file that cannot be read or names nothing.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()  # Windows puts a mark before it
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); expected: a list of names, one a line") from error
    names = frozenset(filter(None, (spelled_alike(re.split(r"(?:^|\s)#", line)[0]) for line in lines)))
    if not names:
        raise UserError(f"{path}: names nothing; expected: patients or scans, one a line")
    return names


def is_held_out(case: Case, names: Collection[str]) -> bool:
    """Whether a list names a case, its patient or its scan, also behind a link.

    A case of a data set that holds some of the named scans under other names is held out too, see
    `SHARED`.
    """
    place = Path(case["image"]).resolve()
    stems = {case["name"], scan_name(Path(case["image"])), scan_name(place)}
    known = {case["patient"] or "", *place.parts, *stems, *map(zenodo_name, stems), *map(patient_of_scan, stems)}
    named = not set(map(spelled_alike, known)).isdisjoint(names)
    return named or not twins([known_as(names)]).isdisjoint(beginnings(case))


def _divide(cases: Iterable[Case], names: Collection[str]) -> tuple[list[Case], list[Case]]:
    """Return the cases that a list does not name, and those that it names."""
    kept: list[Case] = []
    held: list[Case] = []
    for case in cases:
        (held if is_held_out(case, names) else kept).append(case)
    return kept, held


def refuse_held_out(cases: Iterable[Case], names: Collection[str], what: str) -> None:
    """Refuse a training that would see what a list holds out.

    Raises:
        UserError: names some of these cases.
    """
    found = [case["name"] for case in _divide(cases, names)[1]]
    if found:
        raise UserError(
            f"{what}: {len(found)} cases are held out ({some(found)}); expected: a training without them, as "
            "`prepare --held-out` makes it"
        )


def keep_out(datalist: Datalist, names: Collection[str]) -> None:
    """Move held-out cases to `test`, drop those without a person's label; a warning counts both."""
    datalist["training"], held = _divide(datalist["training"], names)
    datalist["unlabeled"], dropped = _divide(datalist["unlabeled"], names)
    moved = [case for case in held if not case.get("pseudo")]
    datalist["test"] = [*datalist["test"], *moved]
    text = f"{len(moved)} cases are in test, {len(dropped) + len(held) - len(moved)} unlabelled ones were left out"
    datalist["warnings"].append(f"held out: {text}")
