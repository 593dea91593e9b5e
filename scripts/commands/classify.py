"""`python -m scripts classify SCAN OUT --class_weights ... --weights ...`: ground glass and consolidation."""

from __future__ import annotations

import sys
from pathlib import Path

from ..errors import UserError
from ..inference.segmenter import Segmenter
from ..research.classify import Classifier, classify_file


def classify(
    scan: str,
    out: str,
    class_weights: str,
    weights: str | None = None,
    mask: str | None = None,
    intensity: str = "auto",
    threshold: float | None = None,
    smallest_lesion_mm3: float | None = None,
    series: str | None = None,
    volume: int | None = None,
    device: str | None = None,
    overwrite: bool = False,
) -> None:
    """Finds infection on a chest CT and tells ground glass from consolidation inside of it.

    Args:
        scan: a scan as `segment` takes it, one.
        out: folder to write: classes.nii.gz (or as the input; PNG for pictures) with 0, 1, 2 and
            classes.json.
        class_weights: weights of configs/multiclass.yaml, with their metadata.
        weights: weights that find infection in slices, with their metadata.
        mask: instead of these, an infection mask on the scan's grid: above 0, a person's or any
            network's.
        intensity: auto, hu, or window:LO,HI for an export that was mapped from that HU window.
        threshold: probability from which on a voxel is infection; the metadata's unless given.
        smallest_lesion_mm3: lesions below this volume are left out; the metadata's unless given.
        series: which DICOM series, where a folder holds several.
        volume: which volume of a 4-D file, from 1.
        device: cpu, cuda, mps; the first that is there unless given.
        overwrite: replaces what an earlier call wrote.
    """
    classifier = Classifier(class_weights, device)
    if mask is not None and (weights, threshold, smallest_lesion_mm3) == (None, None, None):
        infection: Segmenter | Path = Path(mask)
    elif mask is None and weights is not None:
        infection = Segmenter(weights, device, threshold, smallest_lesion_mm3)
    else:
        raise UserError(
            "classify: infection from where?; expected: --weights, with --threshold and --smallest_lesion_mm3 as you "
            "like, or --mask alone"
        )
    report = classify_file(scan, out, infection, classifier, intensity, volume, series, overwrite)
    if report["demonstration"]:
        print(report["demonstration"], file=sys.stderr)
    for name, found in report["measures"].items():
        size = f"{found['ml']:.1f} ml" if "ml" in found else f"{found['voxels']} voxels"
        print(f"{name.replace('_', ' ')}: {size}")
