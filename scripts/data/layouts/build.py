"""Makes the list of cases from one or several data sets as they unzip; counts it in a table."""

from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from ...errors import UserError
from ..held_out import keep_out
from ..overlaps import copies_warning, drop_overlaps
from ..parts import Sizes, draw_parts
from ..splits import assign_folds, check_test_disjoint, patients_of, split_warnings, unknown_patients_warning
from .base import Findings
from .case import LIST_NAMES, Case, Datalist, all_cases, new_datalist
from .checks import Facts, check_findings
from .registry import overlap_warnings, recognise


def build_datalist(
    sources: Sequence[Path],
    folds: int = 5,
    seed: int = 0,
    split: str = "patient",
    held_out: Collection[str] = (),
    sizes: Sizes | None = None,
    test_sources: Sequence[Path] = (),
) -> tuple[Datalist, Facts]:
    """Recognise, pair, check and split data sets as they unzip, each a folder; see `assign_folds`.

    Args:
        sources: data sets for training and validation, and test cases that they keep apart.
        folds: see `assign_folds`; without meaning where `sizes` name a validation part.
        seed: of folds and parts.
        split: see `assign_folds`.
        held_out: what is kept out of training, see `keep_out`.
        sizes: of parts to draw, see `draw_parts`.
        test_sources: data sets whose labelled cases are the test cases, in place of those of
            `sources`. What overlaps with them is left out, see `drop_overlaps`.

    Returns:
        The list with absolute paths, and what the checks learned (slices, infected slices).

    Raises:
        UserError: a folder that is no known data set, or every offender of the trees, one line
            each.
    """
    datalist, facts = new_datalist(split=split, folds=folds, seed=seed), Facts()
    problems = _add_sources(datalist, facts, sources)
    if held_out:
        keep_out(datalist, held_out)
    if test_sources:
        tests = new_datalist()
        problems += _add_sources(tests, facts, test_sources)
        _test_on(datalist, tests)
    problems += _duplicates(all_cases(datalist))
    if problems:
        raise UserError(f"{len(problems)} problems in {', '.join(map(str, [*sources, *test_sources]))}:", *problems)
    datalist["warnings"] += copies_warning(datalist)
    _split(datalist, facts, sizes)
    return datalist, facts


def _add_sources(datalist: Datalist, facts: Facts, sources: Sequence[Path]) -> list[str]:
    """Add what data sets hold to a list; return a line for each offender."""
    places = [path.resolve() for path in sources]
    layouts, roots = zip(*map(recognise, places), strict=True)
    findings = [layout.collect(root) for layout, root in zip(layouts, roots, strict=True)]
    problems = _attach_partners(findings)
    for source, layout, found in zip(places, layouts, findings, strict=True):
        problems += _add_source(datalist, facts, source, layout.name, found)
    return problems


def _test_on(datalist: Datalist, tests: Datalist) -> None:
    """Make the labelled cases of other data sets the test cases of a list."""
    if datalist["test"]:
        text = f"{len(datalist['test'])} test cases of {datalist['name']} left out"
        datalist["warnings"].append(f"{text}: those of {tests['name']} take their place")
    datalist["test"] = [*tests["training"], *tests["test"]]
    datalist["test_name"] = tests["name"]
    datalist["synthetic"] |= tests["synthetic"]
    datalist["warnings"] += tests["warnings"]
    drop_overlaps(datalist)


def _attach_partners(findings: Sequence[Findings]) -> list[str]:
    """Add files to the cases of other sources; return a line for each file without its case.

    A file of that kind that a case has already stays.
    """
    cases = {case["name"]: case for found in findings for case in found.training}
    problems = []
    for found in findings:
        for (name, key), path in found.partners.items():
            if name in cases:
                cases[name].setdefault(key, str(path))
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


def _split(datalist: Datalist, facts: Facts, sizes: Sizes | None) -> None:
    seed, split = datalist["seed"], datalist["split"]
    cases = [case for case in datalist["training"] if not case.get("pseudo")]
    pseudo = [case for case in datalist["training"] if case.get("pseudo")]  # in no fold and no part
    warnings = split_warnings(cases, split)
    if sizes is not None and sizes != Sizes():
        cases, drawn = draw_parts(cases, sizes, seed, split)
        datalist["test"] += drawn
    if sizes is None or sizes.validation is None:
        cases, warnings = assign_folds(cases, datalist["folds"], seed, split)
    else:
        datalist["folds"] = 1
    datalist["training"] = [*cases, *pseudo]
    check_test_disjoint(cases, datalist["test"], split)
    warnings += unknown_patients_warning(datalist["test"], "test")
    datalist["warnings"] += warnings + overlap_warnings(set(datalist["layout"].split("+")))
    if all(case["fold"] is None for case in cases):
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
