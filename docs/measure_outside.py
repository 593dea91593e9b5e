"""Measure what the removal of marks outside of the body and the lungs costs and gains.

Run from the bundle root, once per folder of scans:

    python -m scripts segment SCANS RESULTS --keep-outside
    python docs/measure_outside.py SCANS RESULTS OUT [--lesions FOLDER] [--lungs FOLDER]

LESIONS and LUNGS hold masks named as the scans; in lungs, 255 is unknown, and such slices are not
counted. OUT receives rows.csv. Each case has a row per kind of lungs: "found" by the product;
"found, cuts ignored", also where the scan shows a part of them; "given". `within_N_percent` is the
fraction of annotated lesion voxels at most N mm from the lungs, `kept_percent` the fraction that
the rule keeps, with the annotation in place of a network's mask. Dice is against the annotation,
with the network's mask before and after. A run that was stopped resumes with the same command.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import fire
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import metrics
from scripts.anatomy.downsampling import dilate
from scripts.anatomy.lungs import Lungs, segment_lungs
from scripts.anatomy.outside import blocks_of, find_zones, remove_outside, why_kept
from scripts.anatomy.tissue import Tissues, segment_tissue
from scripts.errors import ended_by_mistakes
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.io.reading import read_scan
from scripts.io.volume import Scan
from scripts.pipeline.case import read_case
from scripts.pipeline.inputs import expand_inputs
from scripts.pipeline.lung_masks import find_mask
from scripts.research.measured_rows import keep_rows, kept_rows
from scripts.version import bundle_version

MARGINS = (0, 2, 4, 6, 10)  # mm
UNKNOWN = 255

Mask = NDArray[np.uint8]


def read_mask(folder: str, name: str) -> NDArray[Any]:
    """Read the mask of a case, turned to LPS."""
    return read_scan(find_mask(Path(folder), name)).lps()[0]


def dice(one: Mask, other: Mask) -> float:
    """Return the Dice of two masks; 1 for two empty ones."""
    maps = (torch.from_numpy(mask.astype(np.float32)).reshape(1, 1, 1, -1) for mask in (one, other))
    return float(metrics.dice(*maps))


def within(lesion: Mask, seen: Tissues, lungs: Lungs, margin: float) -> float:
    """Return the percentage of lesion voxels that lie at most `margin` mm from the lungs."""
    near = blocks_of(lungs, seen.scan.steps)
    near = dilate(near, margin, seen.scan.spacing) if margin else near
    index = tuple(axis // step for axis, step in zip(np.nonzero(lesion), seen.scan.steps, strict=True))
    return 100 * float(near[index].mean()) if lesion.any() else float("nan")


def measure(
    scan: Scan, mask: Mask, seen: Tissues, lungs: Lungs, lesion: Mask | None, known: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return a row: what the rule removes from a network's mask, and from the annotation."""
    zones, ml = find_zones(seen, lungs), scan.voxel_mm3 / 1000
    after = mask.copy(order="K")
    removed = remove_outside(after, zones, why_kept(lungs))
    lung = int(lungs.areas().sum())
    row: dict[str, Any] = {
        "marked_voxels": int(mask.sum()),
        "outside_body_voxels": removed.outside_body,
        "outside_lungs_voxels": removed.outside_lungs,
        "marked_ml": mask.sum() * ml,
        "removed_ml": (removed.outside_body + removed.outside_lungs) * ml,
        "marked_percent_of_lungs": 100 * mask.sum() / lung if lung else float("nan"),
        "left_percent_of_lungs": 100 * after.sum() / lung if lung else float("nan"),
        "reason": removed.reason,
    }
    if lesion is None:
        return row
    truth = lesion * known
    kept = truth.copy(order="K")
    remove_outside(kept, zones)
    near = {f"within_{margin}_percent": within(truth, seen, lungs, margin) for margin in MARGINS}
    scores = {"dice_before": dice(mask * known, truth), "dice_after": dice(after * known, truth)}
    return row | {"lesion_voxels": int(truth.sum()), "kept_percent": 100 * kept.sum() / truth.sum()} | near | scores


def rows_of(scan: Scan, name: str, results: str, lesions: str, lungs: str) -> list[dict[str, Any]]:
    """Return the rows of a case."""
    seen = segment_tissue(HounsfieldSlices(scan).rounded(), scan.spacing_lps)
    found = segment_lungs(seen)
    mask = read_mask(results, f"{name}/infection").astype(np.uint8)
    lesion = (read_mask(lesions, name) > 0).astype(np.uint8) if lesions else None
    everywhere = np.ones(mask.shape[2], bool)
    kinds = [("found", found, everywhere), ("found, cuts ignored", replace(found, cuts=[]), everywhere)]
    if lungs:
        given = read_mask(lungs, name)
        known = ~(given == UNKNOWN).any(axis=(0, 1))
        whole = Lungs.from_mask(np.where(given == UNKNOWN, 0, given), scan.spacing_lps)
        kinds.append(("given", replace(whole, doubts=[], cuts=[]), known))
    return [
        {"case": name, "lungs": kind, **measure(scan, mask, seen, one, lesion, slices_known)}
        for kind, one, slices_known in kinds
    ]


def main(scans: str, results: str, out: str, lesions: str = "", lungs: str = "") -> None:
    """Measure, case by case."""
    given = {"scans": scans, "results": results, "lesions": lesions, "lungs": lungs}
    places = {name: str(Path(place).resolve()) if place else "" for name, place in given.items()}
    rows = kept_rows(out, version=bundle_version(), **places)
    for case in expand_inputs([Path(scans)], Path(out)):
        if any(row["case"] == case.folder for row in rows):
            continue
        with ExitStack() as stack:
            rows.extend(rows_of(read_case(case, stack), case.folder, results, lesions, lungs))
        keep_rows(out, rows)
        print(f"{case.folder}: done")
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    with ended_by_mistakes():
        fire.Fire(main)
