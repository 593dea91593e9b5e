"""Counts of a list of cases, as a table for people."""

from __future__ import annotations

import pandas as pd

from ..splits import patients_of
from .case import LIST_NAMES, Case, Datalist
from .checks import Facts


def summary_table(datalist: Datalist, facts: Facts) -> pd.DataFrame:
    """Count cases, known patients, slices and infected slices of each fold and each list.

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
