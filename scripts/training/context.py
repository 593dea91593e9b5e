"""What a run was trained or measured on, for the card and the summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.data.datalist import read_datalist
from scripts.errors import UserError


def describe_data(dataset_dir: str, fold: int | None) -> dict[str, Any]:
    """Names the data set and the split, with every warning that belongs to figures made with it.

    Args:
        dataset_dir: folder of the data set.
        fold: validation fold.

    Returns:
        Name, layout, kind and number of folds, fold, seed, number of training cases, warnings; only the folder's
        name where there is no list, as when MONAI Label hands over its own cases.
    """
    try:
        datalist = read_datalist(dataset_dir)
    except UserError:
        return {"name": Path(dataset_dir).name}
    names = ("name", "layout", "split", "folds", "seed")
    described = {name: datalist[name] for name in names}  # type: ignore[literal-required]
    training = [case for case in datalist["training"] if fold is None or case["fold"] != fold]
    return {**described, "fold": fold, "training_cases": len(training), "warnings": datalist["warnings"]}
