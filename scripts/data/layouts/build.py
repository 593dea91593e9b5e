"""Makes the list of cases from one or several data sets as they unzip; counts it in a table."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..splits import assign_folds, check_patient_disjoint, patients_of, unknown_patients_warning
from .base import listing_error
from .case import LIST_NAMES, Case, Datalist, all_cases, new_datalist
from .checks import Facts, check_findings
from .registry import overlap_warnings, recognise


def build_datalist(
    sources: Sequence[Path], folds: int = 5, seed: int = 0, split: str = "patient"
) -> tuple[Datalist, Facts]:
    """Recognise, pair, check and split data sets as they unzip, each a folder; see `assign_folds`.

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
        datalist[name] += getattr(found, name)
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


def summary_table(datalist: Datalist, facts: Facts) -> pd.DataFrame:
    """Count cases, known patients, slices and infected slices of each fold and each list.

    Both arguments are what `build_datalist` returned.
    """
    rows: dict[str, list[Case]] = {
        f"fold {fold}": [case for case in datalist["training"] if case["fold"] == fold]
        for fold in range(datalist["folds"])
    }
    for name in LIST_NAMES:
        rows[name] = datalist[name]
    return pd.DataFrame({name: _counts(cases, facts) for name, cases in rows.items() if cases}).T


def _counts(cases: list[Case], facts: Facts) -> dict[str, int | str]:
    slices = sum(len(case["slices"]) if "slices" in case else facts.slices[case["image"]] for case in cases)
    labelled = [case for case in cases if "label" in case]
    infected = sum(_infected(case, facts) for case in labelled)
    patients = len(patients_of(cases))
    unknown = any(case["patient"] is None for case in cases)
    return {
        "cases": len(cases),
        "patients": f"{patients or ''}{'+' if patients and unknown else ''}{'?' if unknown else ''}",
        "slices": slices,
        "infected": f"{infected} ({infected / slices:.0%})" if labelled else "-",
    }


def _infected(case: Case, facts: Facts) -> int:
    marked = facts.infected[case["label"]]
    return int(marked[case["slices"]].sum() if "slices" in case else marked.sum())
