"""Scans that several data sets hold under names of their own: none may be in training and test."""

from collections.abc import Iterable

from ..messages import some
from .layouts.case import Case, Datalist
from .splits import patients_of

SHARED: tuple[frozenset[str], ...] = (
    frozenset({"medseg_rp_", "radiopaedia_"}),  # the volumes of MedSeg part 2 are in Zenodo 3757476
    frozenset({"medseg_tr_im", "semiseg_"}),  # the labelled slices of COVID-SemiSeg are in MedSeg part 1
)
"""Beginnings of the names under which two data sets hold the same scans. Which scan is which is not
known, so all of one set count as those of the other."""


def drop_overlaps(datalist: Datalist) -> None:
    """Leave out of training and unlabelled cases what may show a test case; a warning names them.

    Cases overlap that share a name or a known patient with a test case, or by `SHARED`.
    """
    test = datalist["test"]
    names, patients = {case["name"] for case in test}, patients_of(test)
    beginnings = {other for pair in SHARED for one in pair if _any_begins(test, one) for other in pair - {one}}
    for key in ("training", "unlabeled"):
        kept, dropped = list[Case](), list[str]()
        for case in datalist[key]:
            shared = case["name"] in names or case["patient"] in patients or case["name"].startswith(tuple(beginnings))
            dropped.append(case["name"]) if shared else kept.append(case)
        datalist[key] = kept
        if dropped:
            text = f"{len(dropped)} {key} cases left out, which are or may be in the test data"
            datalist["warnings"].append(f"{text}: {some(dropped)}")


def _any_begins(cases: Iterable[Case], beginning: str) -> bool:
    return any(case["name"].startswith(beginning) for case in cases)
