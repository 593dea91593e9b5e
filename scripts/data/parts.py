"""Training, validation and test parts of stated sizes, as papers name them: 4000/449, 14/2/4."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .layouts.case import SPLITS, Case
from .splits import group_of, is_divided, slices_of

_NUMBERS = re.compile(r"(\d+)/(\d+)/(\d+)")


@dataclass(frozen=True)
class Sizes:
    """How many scans, or slices in a split by slice, each part gets.

    Attributes:
        training: None: what the others leave.
        validation: None: the rest is divided into folds.
        test: 0: none beside those that the data sets keep apart.
    """

    training: int | None = None
    validation: int | None = None
    test: int = 0


def read_split(split: str, validation: int | None = None, test: int = 0) -> tuple[str, Sizes]:
    """Read a split as the command line has it: "patient", "slice", or numbers such as "14/2/4".

    >>> read_split("14/2/4")
    ('patient', Sizes(training=14, validation=2, test=4))

    Raises:
        UserError: another split, numbers that are named twice, or parts without anything.
    """
    numbers = _NUMBERS.fullmatch(split)
    if split not in SPLITS and not numbers:
        expected = f"{', '.join(SPLITS)}, or numbers of scans such as 14/2/4 (training/validation/test)"
        raise UserError(f"--split {split}; expected: {expected}")
    if numbers and (validation is not None or test):
        raise UserError(f"--split {split} with --validation or --test; expected: one of both")
    sizes = Sizes(*map(int, numbers.groups())) if numbers else Sizes(None, validation, test)
    if sizes.training == 0 or sizes.validation == 0 or sizes.test < 0 or (sizes.validation or 1) < 0:
        raise UserError(f"--split {split}, --validation {validation}, --test {test}; expected: 1 or more in each part")
    return ("patient" if numbers else split), sizes


def draw_parts(cases: Sequence[Case], sizes: Sizes, seed: int, split: str) -> tuple[list[Case], list[Case]]:
    """Draw test and validation cases at random, by names and `seed`.

    What stays together is a patient (a case of unknown patient, a slice of an independent stack)
    or, in a split by slice, a slice. A patient with several scans counts as often, and goes where
    they fit. A volume whose slices are in several parts becomes one case per part.

    Returns:
        The other cases, with validation as fold 0 and training in no fold where `validation` is
        given; and the test cases.

    Raises:
        UserError: parts that do not add up to what there is, or that the scans of the patients do
            not fill.
    """
    units = _units(cases, split)
    count = sum(map(len, units.values()))
    taken = sizes.test + (sizes.validation or 0)
    what = "scans" if split == "patient" else "slices"
    if taken >= count or sizes.training not in (None, count - taken):
        wanted = f"{sizes.training or 'the rest'} for training, {taken} beside them"
        raise UserError(f"{count} {what}, and {wanted}; expected: parts that add up to {count}")
    names = sorted(units)
    order = [names[place] for place in np.random.default_rng(seed).permutation(len(names))]
    chosen, order = _filled(units, order, sizes.test)
    test = [Case(**{**case, "drawn": True}) for case in _collected(units, chosen, "test")]
    if sizes.validation is None:
        return _collected(units, order, None), test
    chosen, order = _filled(units, order, sizes.validation)
    validation = [Case(**{**case, "fold": 0}) for case in _collected(units, chosen, "fold0")]
    return sorted(validation + _collected(units, order, "train"), key=lambda case: case["name"]), test


_Unit = list[tuple[Case, int | None]]
"""The scans of a patient, or one slice of a case."""
_Name = tuple[bool, str, int]


def _filled(units: dict[_Name, _Unit], order: Sequence[_Name], size: int) -> tuple[list[_Name], list[_Name]]:
    """Take units in their order as far as they fit; return them and the others."""
    taken: list[_Name] = []
    others: list[_Name] = []
    for name in order:
        fits = len(units[name]) <= size
        (taken if fits else others).append(name)
        size -= len(units[name]) if fits else 0
    if size:
        raise UserError(f"no patient has {size} scans left to fill a part; expected: other numbers, or another --seed")
    return taken, others


def _units(cases: Sequence[Case], split: str) -> dict[_Name, _Unit]:
    units: dict[_Name, _Unit] = defaultdict(list)
    for case in cases:
        if is_divided(case, split):
            for index in slices_of(case):
                units[(True, case["name"], index)].append((case, index))
        else:
            units[(*group_of(case, split == "patient"), -1)].append((case, None))
    return units


def _collected(units: dict[_Name, _Unit], names: Sequence[_Name], part: str | None) -> list[Case]:
    """Return the cases of some units; the slices of a volume together, named after their part."""
    found: dict[str, Case] = {}
    slices: dict[str, list[int]] = defaultdict(list)
    for case, index in (one for name in names for one in units[name]):
        found[case["name"]] = Case(**{**case, "fold": None})
        if index is not None:
            slices[case["name"]].append(index)
    for name, indices in slices.items():
        found[name] |= {"name": name if part is None else f"{name}_{part}", "slices": sorted(indices)}
    return sorted(found.values(), key=lambda case: case["name"])
