"""Scans that several data sets hold under names of their own: none may be in training and test."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..files import sha256
from ..messages import counted, some
from .layouts.case import Case, Datalist
from .layouts.patients import zenodo_name
from .splits import patients_of

SHARED: tuple[frozenset[str], ...] = (
    frozenset({"medseg_rp_", "radiopaedia_"}),  # the volumes of MedSeg part 2 are in Zenodo 3757476
    frozenset({"medseg_tr_im", "semiseg_"}),  # the labelled slices of COVID-SemiSeg are in MedSeg part 1
)
"""Beginnings of the names or patients under which two data sets hold the same scans. Which scan is
which is not known, so all of one set count as those of the other."""


def drop_overlaps(datalist: Datalist) -> None:
    """Leave out of training and unlabelled cases what may show a test case; a warning names them.

    Cases overlap that share a name or a known patient with a test case, or by `SHARED`.
    """
    test = datalist["test"]
    names, patients, others = {case["name"] for case in test}, patients_of(test), twins(map(beginnings, test))
    for key in ("training", "unlabeled"):
        kept, dropped = list[Case](), list[str]()
        for case in datalist[key]:
            shared = case["name"] in names or case["patient"] in patients or not others.isdisjoint(beginnings(case))
            dropped.append(case["name"]) if shared else kept.append(case)
        datalist[key] = kept
        if dropped:
            text = f"{len(dropped)} {key} cases left out, which are or may be in the test data"
            datalist["warnings"].append(f"{text}: {some(dropped)}")


def copies_warning(datalist: Datalist) -> list[str]:
    """Return one line when cases have, byte for byte, the image of a labelled one, else nothing."""
    labelled = [case for case in datalist["training"] + datalist["test"] if not case.get("pseudo")]
    others = [case for case in datalist["training"] if case.get("pseudo")] + datalist["unlabeled"]
    sizes = [Path(case["image"]).stat().st_size for case in labelled + others]
    first, copies, alike = dict[str, str](), list[str](), Counter(sizes)
    possible = {size for size in sizes[: len(labelled)] if alike[size] > 1}
    for place, (case, size) in enumerate(zip(labelled + others, sizes, strict=True)):
        digest = sha256(case["image"]) if size in possible else ""
        if digest in first:
            copies.append(f"{case['name']} ({first[digest]})")
        elif digest and place < len(labelled):
            first[digest] = case["name"]
    text = "under several names, perhaps in training and in validation"
    return [f"{counted(len(copies), 'image')} {text}: {some(copies)}"] if copies else []


def beginnings(case: Case) -> frozenset[str]:
    """Return the beginnings of `SHARED` under which a case is known, a slice by its scan too."""
    return known_as((case["name"], zenodo_name(case["name"]), case["patient"] or ""))


def known_as(names: Iterable[str]) -> frozenset[str]:
    """Return the beginnings of `SHARED` that names have."""
    every = {one for pair in SHARED for one in pair}
    return frozenset(one for name in names for one in every if name.startswith(one))


def twins(known: Iterable[frozenset[str]]) -> frozenset[str]:
    """Return the beginnings under which another data set holds what is known by these."""
    found = {one for group in known for one in group}
    return frozenset(other for pair in SHARED for one in pair & found for other in pair - {one})
