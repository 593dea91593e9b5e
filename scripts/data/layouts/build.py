"""Makes the list of cases from one or several data sets as they unzip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..splits import assign_folds, check_patient_disjoint, unknown_patients_warning
from .base import listing_error
from .case import LIST_NAMES, Case, Datalist, all_cases, new_datalist
from .checks import Facts, check_findings
from .registry import overlap_warnings, recognise

DEFAULT_FOLDS = 5
DEFAULT_SEED = 0
DEFAULT_SPLIT = "patient"


def build_datalist(
    sources: Sequence[Path], folds: int = DEFAULT_FOLDS, seed: int = DEFAULT_SEED, split: str = DEFAULT_SPLIT
) -> tuple[Datalist, Facts]:
    """Recognise, pair, check and split one or several data sets as they unzip.

    Args:
        sources: folders, each one data set.
        folds: number of folds, 2 or more.
        seed: seed of the folds, 0 or more.
        split: "patient" or "slice", see `scripts.data.splits.assign_folds`.

    Returns:
        The list with absolute paths, and what the checks learned (slices, infected slices).

    Raises:
        UserError: a folder that is no known data set, or every offender of the trees, one line
            each.
    """
    datalist = new_datalist(split=split, folds=folds, seed=seed)
    facts, problems = Facts(), list[str]()
    for source in (path.resolve() for path in sources):
        problems += _add_source(datalist, facts, source)
    problems += _duplicates(all_cases(datalist))
    if problems:
        raise listing_error(f"{len(problems)} problems in {', '.join(map(str, sources))}:", problems)
    _split(datalist, facts)
    return datalist, facts


def _add_source(datalist: Datalist, facts: Facts, source: Path) -> list[str]:
    layout, root = recognise(source)
    found = layout.collect(root)
    check_findings(found, source.name, facts)
    datalist["name"] = "+".join(filter(None, [datalist["name"], source.name]))
    datalist["layout"] = "+".join(filter(None, [datalist["layout"], layout.name]))
    datalist["synthetic"] |= found.synthetic
    datalist["warnings"] += found.warnings
    for name in LIST_NAMES:
        datalist[name] += found.cases(name)
    return found.problems


def _split(datalist: Datalist, facts: Facts) -> None:
    datalist["training"], warnings = assign_folds(
        datalist["training"], datalist["folds"], datalist["seed"], datalist["split"]
    )
    check_patient_disjoint(datalist["training"], datalist["test"], name="test")
    warnings += unknown_patients_warning(datalist["test"], "test")
    datalist["warnings"] += warnings + overlap_warnings(set(datalist["layout"].split("+")))
    if all(case["fold"] is None for case in datalist["training"]):
        datalist["folds"] = 0
    if datalist["training"] and not any(marked.any() for marked in facts.infected.values()):
        datalist["warnings"].append("no label marks any infection")


def _duplicates(cases: Sequence[Case]) -> list[str]:
    first: dict[str, str] = {}
    problems = []
    for case in cases:
        if case["name"] in first:
            problems.append(f"{case['image']}: duplicate case name '{case['name']}', so has {first[case['name']]}")
        first.setdefault(case["name"], case["image"])
    return problems
