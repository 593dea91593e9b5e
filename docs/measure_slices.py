"""Compare a report with slice labels: infected slices that are found, clean ones that are marked.

Run from the bundle root: python docs/measure_slices.py OUTPUT/CASE/report.json LABELS.csv
LABELS has the columns slice_from_superior (from 0) and infected (0 or 1). A slice counts from the
minimum positive fraction on that the checkpoint metadata states (`python -m scripts calibrate`).
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import fire
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.errors import UserError


def main(report_file: str, labels_file: str) -> None:
    """Prints sensitivity and specificity over the slices.

    Raises:
        UserError: if the labels are not those of the report's slices.
    """
    report = json.loads(Path(report_file).read_text(encoding="utf-8"))
    labels = pd.read_csv(labels_file).reindex(columns=["slice_from_superior", "infected"])
    labels = labels.sort_values("slice_from_superior")
    voxels = pd.Series(report["measures"]["slice_profile"]["infection_voxels"])
    if list(labels["slice_from_superior"]) != list(range(len(voxels))) or not labels["infected"].isin([0, 1]).all():
        expected = f"one row for each slice from 0 to {len(voxels) - 1}, infected 0 or 1"
        raise UserError(f"{labels_file}: {len(labels)} rows that do not fit the report; expected: {expected}")
    share = voxels * len(voxels) / math.prod(report["case"]["shape_voxels"])
    least = report["model"]["operating_point"]["least_slice_share"]
    touched = (share > 0).to_numpy()
    counted = touched & (share >= least).to_numpy()
    infected = labels["infected"].to_numpy() == 1
    for name, chosen in (("slices with infection", infected), ("clean slices", ~infected)):
        counts = f"{counted[chosen].sum()} count as infected ({counted[chosen].mean():.1%})"
        print(f"{chosen.sum()} {name}: {counts}, {touched[chosen].sum()} hold a mark")


if __name__ == "__main__":
    try:
        fire.Fire(main)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
