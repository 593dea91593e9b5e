"""Makes the list of cases from one or several data sets as they unzip; counts it in a table."""

from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from ..held_out import keep_out
from ..splits import assign_folds, check_patient_disjoint, patients_of, unknown_patients_warning
from .base import Findings, listing_error
from .case import LIST_NAMES, Case, Datalist, all_cases, new_datalist
from .checks import Facts, check_findings
from .registry import overlap_warnings, recognise


def build_datalist(
    sources: Sequence[Path], folds: int = 5, seed: int = 0, split: str = "patient", held_out: Collection[str] = ()
) -> tuple[Datalist, Facts]:
    """Recognise, pair, check and split data sets as they unzip, each a folder; see `assign_folds`.

    What `held_out` names is kept out of training, see `keep_out`.

    Returns:
        The list with absolute paths, and what the checks learned (slices, infected slices).

    Raises:
        UserError: a folder that is no known data set, or every offender of the trees, one line
            each.
    """
    datalist = new_datalist(split=split, folds=folds, seed=seed)
    facts, problems = Facts(), list[str]()
    places = [path.resolve() for path in sources]
    layouts, roots = zip(*map(recognise, places), strict=True)
    findings = [layout.collect(root) for layout, root in zip(layouts, roots, strict=True)]
    problems += _attach_partners(findings)
    for source, layout, found in zip(places, layouts, findings, strict=True):
        problems += _add_source(datalist, facts, source, layout.name, found)
    problems += _duplicates(all_cases(datalist))
    if problems:
        raise listing_error(f"{len(problems)} problems in {', '.join(map(str, sources))}:", problems)
    if held_out:
        keep_out(datalist, held_out)
    _split(datalist, facts)
    return datalist, facts


def _attach_partners(findings: Sequence[Findings]) -> list[str]:
    """Add files to the cases of other sources; return a line for each file without its case."""
    cases = {case["name"]: case for found in findings for case in found.training}
    problems = []
    for found in findings:
        for (name, key), path in found.partners.items():
            if name in cases:
                cases[name][key] = str(path)
            else:
                problems.append(f"{path}: no case '{name}' in any SOURCE; expected: the data set of its scan as well")
    return problems


def _add_source(datalist: Datalist, facts: Facts, source: Path, layout: str, found: Findings) -> list[str]:
    check_findings(found, source.name, facts)
    datalist["name"] = "+".join(filter(None, [datalist["name"], source.name]))
    datalist["layout"] = "+".join(filter(None, [datalist["layout"], layout]))
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
