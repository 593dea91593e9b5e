"""Cross-validation folds by patient, or by slice as in Hu et al. 2022; leakage check."""

import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..io.images import is_picture
from ..io.reading import read_grid
from ..messages import some
from .layouts.case import SPLITS, Case

SLICE_WARNING = (
    "split by slice: slices of one scan are in training and in validation or test (the paper's "
    "protocol), so figures are too high for new patients"
)
ONE_PATIENT_WARNING = "one patient: there are no folds and nothing to validate on; train with --fold null"


def assign_folds(cases: Sequence[Case], folds: int, seed: int, split: str = "patient") -> tuple[list[Case], list[str]]:
    """Give every labelled case its fold, by names and `seed`, not by the order of `cases`.

    Split "patient": the cases of a patient share a fold, folds are balanced by number of cases, a
    case of an unknown patient stands for itself. A case that names its `slices` and no patient is a
    stack of independent slices: it is repeated, one part of its slices in each fold. Split "slice":
    so is every volume.

    Returns:
        New cases, sorted by name, and the warnings that go with the split.

    Raises:
        UserError: an argument out of range, or fewer patients (slices) than folds.
    """
    _check_arguments(folds, seed, split)
    ordered = sorted(cases, key=lambda case: case["name"])
    if _stands_alone(ordered, split):
        return [Case(**{**case, "fold": None}) for case in ordered], [
            ONE_PATIENT_WARNING,
            *split_warnings(ordered, split),
        ]
    divided = [case for case in ordered if is_divided(case, split)]
    whole = [case for case in ordered if not is_divided(case, split)]
    result = _assign_groups(whole, folds, seed, by_patient=split == "patient")
    for case in divided:
        result += _divide_slices(case, folds, seed)
    if cases:
        _check_filled(result, folds, split)
    return sorted(result, key=lambda case: case["name"]), split_warnings(ordered, split)


def check_patient_disjoint(training: Iterable[Case], other: Iterable[Case], name: str = "validation") -> None:
    """Make sure that no known patient is on both sides; unknown patients (None) cannot be checked.

    Raises:
        UserError: names the patients that are on both sides.
    """
    both = sorted(patients_of(training) & patients_of(other))
    if both:
        raise UserError(f"patients {', '.join(both)} are in training and in {name}; expected: each patient on one side")


def check_test_disjoint(training: Iterable[Case], test: Iterable[Case], split: str) -> None:
    """`check_patient_disjoint` for test cases; what a split by slice drew for them is left out."""
    checked = (case for case in test if not (split == "slice" and case.get("drawn", False)))
    check_patient_disjoint(training, checked, name="test")


def shared_images(cases: Iterable[Case], others: Iterable[Case], folder: Path) -> list[Case]:
    """Return the cases of whose image a slice is in other cases too, under whatever names.

    Paths are relative to `folder` and looked at behind links.
    """
    held: dict[str, list[Case]] = defaultdict(list)
    for case in others:
        held[os.path.realpath(folder / case["image"])].append(case)
    return [
        case
        for case in cases
        if any(_slices_meet(case, other) for other in held.get(os.path.realpath(folder / case["image"]), ()))
    ]


def _slices_meet(case: Case, other: Case) -> bool:
    if "slices" not in case or "slices" not in other:
        return True
    return not set(case["slices"]).isdisjoint(other["slices"])


def check_images_disjoint(training: Iterable[Case], other: Iterable[Case], name: str, folder: Path) -> None:
    """Make sure that no slice of an image is on both sides, see `shared_images`.

    Raises:
        UserError: names the cases that are on both sides.
    """
    if both := [case["name"] for case in shared_images(training, other, folder)]:
        raise UserError(
            f"{folder}: the images of the training cases {some(both)} are in {name} too, under other names; expected: "
            "each image on one side"
        )


def patients_of(cases: Iterable[Case]) -> set[str]:
    """The known patients of some cases."""
    return {case["patient"] for case in cases if case["patient"] is not None}


def unknown_patients_warning(cases: Sequence[Case], what: str) -> list[str]:
    """One line when patients of some cases are unknown, else nothing."""
    unknown = sum(case["patient"] is None for case in cases)
    return [f"patients unknown, may overlap: {unknown} of {len(cases)} {what} cases"] if unknown else []


def _check_arguments(folds: int, seed: int, split: str) -> None:
    if type(folds) is not int or folds < 2:
        raise UserError(f"folds: {folds!r}; expected: a whole number from 2")
    if type(seed) is not int or seed < 0:
        raise UserError(f"seed: {seed!r}; expected: a whole number from 0")
    if split not in SPLITS:
        raise UserError(f"split: {split!r}; expected: {', '.join(SPLITS)}")


def _stands_alone(cases: Sequence[Case], split: str) -> bool:
    """Whether there is one patient, or one case, so that nothing is left to validate on."""
    groups = {group_of(case, split == "patient") for case in cases}
    return len(groups) == 1 and not any(is_divided(case, split) for case in cases)


def group_of(case: Case, by_patient: bool) -> tuple[bool, str]:
    """Return what a split must keep together: a patient; a case whose patient is unknown."""
    patient = case["patient"] if by_patient else None
    return patient is None, case["name"] if patient is None else patient


def is_divided(case: Case, split: str) -> bool:
    """Whether a split takes the slices of a case one by one."""
    if is_picture(case["image"]):
        return False
    return split == "slice" or ("slices" in case and case["patient"] is None)


def _assign_groups(cases: Sequence[Case], folds: int, seed: int, by_patient: bool) -> list[Case]:
    """Put the largest group first, each into the fold with the fewest cases of its source.

    A source is a folder of scans or of pictures. Of equal folds the one with the fewest cases of
    others is taken, else one at random.
    """
    groups: dict[tuple[bool, str], list[Case]] = defaultdict(list)
    for case in cases:
        groups[group_of(case, by_patient)].append(case)
    order = np.random.default_rng(seed).permutation(len(groups))
    shuffled = [groups[key] for key in (sorted(groups)[index] for index in order)]
    filled = [Counter[tuple[Path, bool]]() for _ in range(folds)]
    result: list[Case] = []
    for group in sorted(shuffled, key=len, reverse=True):
        kinds = Counter((Path(case["image"]).parent, is_picture(case["image"])) for case in group)
        kind = kinds.most_common(1)[0][0]
        fold = min(range(folds), key=lambda fold: (filled[fold][kind], filled[fold].total()))
        filled[fold] += kinds
        result += [Case(**{**case, "fold": fold}) for case in group]
    return result


def _divide_slices(case: Case, folds: int, seed: int) -> list[Case]:
    """Deal the slices of a volume at random to the folds, starting at a random fold."""
    slices = slices_of(case)
    random = np.random.default_rng([seed, zlib.crc32(case["name"].encode())])
    shuffled, first = random.permutation(slices).tolist(), int(random.integers(folds))
    parts = [sorted(shuffled[(fold - first) % folds :: folds]) for fold in range(folds)]
    return [
        Case(**{**case, "name": f"{case['name']}_fold{fold}", "fold": fold, "slices": part})
        for fold, part in enumerate(parts)
        if part
    ]


def slices_of(case: Case) -> list[int]:
    """Return the indices of the slices of a volume that a case covers."""
    return case["slices"] if "slices" in case else list(range(read_grid(Path(case["image"])).slices))


def _check_filled(cases: Sequence[Case], folds: int, split: str) -> None:
    filled = len({case["fold"] for case in cases})
    if filled < folds:
        what = "patients" if split == "patient" else "slices"
        fewer = f"--folds {filled}{' or fewer' if filled > 2 else ''}"
        expected = fewer if filled > 1 else f"2 {what} or more"
        raise UserError(f"{folds} folds need as many {what}, found {filled}; expected: {expected}")


def split_warnings(cases: Sequence[Case], split: str) -> list[str]:
    """Return what every figure measured with a split of these cases has to say."""
    volumes = any(not is_picture(case["image"]) for case in cases)
    leaks = [SLICE_WARNING] if split == "slice" and volumes else []
    return leaks + unknown_patients_warning(cases, "training")
