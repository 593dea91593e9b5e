"""Compares a report with slice labels: how many slices with infection are found, how many clean ones are marked.

Run from the bundle root: python docs/measure_slices.py OUTPUT/CASE/report.json LABELS.csv
LABELS has the columns slice_from_superior (from 0) and infected (0 or 1). A slice counts from the least share on that
the card of the weights states (`python -m scripts calibrate`).
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pandas as pd


def main(report_file: str, labels_file: str) -> None:
    """Prints sensitivity and specificity over the slices."""
    report = json.loads(Path(report_file).read_text(encoding="utf-8"))
    labels = pd.read_csv(labels_file).sort_values("slice_from_superior")
    voxels = pd.Series(report["measures"]["slice_profile"]["infection_voxels"])
    if len(voxels) != len(labels):
        raise SystemExit(f"{labels_file}: {len(labels)} slices, the report has {len(voxels)}")
    share = voxels * len(voxels) / math.prod(report["case"]["shape_voxels"])
    least = report["model"]["operating_point"]["least_slice_share"]
    touched = (share > 0).to_numpy()
    counted = touched & (share >= least).to_numpy()
    infected = labels["infected"].to_numpy() == 1
    for name, chosen in (("slices with infection", infected), ("clean slices", ~infected)):
        counts = f"{counted[chosen].sum()} count as infected ({counted[chosen].mean():.1%})"
        print(f"{chosen.sum()} {name}: {counts}, {touched[chosen].sum()} hold a mark")


if __name__ == "__main__":
    main(*sys.argv[1:])
