"""`python -m scripts prepare SOURCE... OUT`: recognises, checks and splits data sets as they unzip."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..data.layouts.build import DEFAULT_FOLDS, DEFAULT_SEED, DEFAULT_SPLIT, build_datalist
from ..data.layouts.case import LIST_NAMES, Case, Datalist
from ..data.layouts.checks import Facts
from ..data.layouts.prepared import check_output, write_prepared
from ..data.splits import patients_of
from ..errors import UserError


def prepare(
    *paths: str,
    folds: int = DEFAULT_FOLDS,
    seed: int = DEFAULT_SEED,
    split: str = DEFAULT_SPLIT,
    copy: bool = False,
    overwrite: bool = False,
) -> None:
    """Writes OUT/datalist.json for one or several data sets, with OUT/images/, OUT/labels/ as links to them.

    Links are relative: OUT and the sources can be moved together; --copy makes OUT stand alone.

    Args:
        *paths: SOURCE... OUT: data sets as they unzip, then the folder to write.
        folds: number of cross-validation folds, 2 or more.
        seed: seed of the folds.
        split: "patient" (no patient in two folds) or "slice" (the paper's, leaks between slices of
            a scan).
        copy: copies the files instead of linking to them.
        overwrite: replaces an earlier output of this command; refused where OUT holds anything
            else.

    Raises:
        UserError: wrong use, or every offender of a data set.
    """
    if len(paths) < 2:
        raise UserError(f"prepare: {len(paths)} paths, expected: SOURCE... OUT")
    *sources, out = (Path(str(path)) for path in paths)
    check_output(out, sources, overwrite)
    datalist, facts = build_datalist(sources, folds, seed, split)
    write_prepared(datalist, out, copy)
    print(f"{out}: {datalist['name']} ({datalist['layout']}), split by {split}, seed {seed}")
    print(summary_table(datalist, facts).to_string())
    for warning in datalist["warnings"]:
        print(f"warning: {warning}")


def summary_table(datalist: Datalist, facts: Facts) -> pd.DataFrame:
    """Counts cases, known patients, slices and infected slices of each fold and each list.

    Args:
        datalist: with absolute paths, as `build_datalist` returns it.
        facts: from the same call.
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
