"""`python -m scripts classify SCAN OUT ...`: ground glass and consolidation."""

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import (
    Backend,
    Device,
    Intensity,
    Limit,
    Out,
    Overwrite,
    Precision,
    Series,
    SmallestLesion,
    Threshold,
    Volume,
    limits_of,
)


def classify(
    scan: Annotated[Path, Argument(help="One scan, in any format of `segment`.")],
    out: Out,
    class_weights: Annotated[
        Path | None, Option("--class_weights", help="Weights of a multi-class network; default: models/classes.pt.")
    ] = None,
    weights: Annotated[Path | None, Option(help="Weights that find the infection; default: shipped ones.")] = None,
    mask: Annotated[
        Path | None, Option(help="Infection mask on the scan's grid, above 0, in place of --weights.")
    ] = None,
    intensity: Intensity = "auto",
    threshold: Threshold = None,
    smallest_lesion_mm3: SmallestLesion = None,
    series: Series = None,
    volume: Volume = None,
    device: Device = None,
    backend: Backend = "auto",
    precision: Precision = "auto",
    limit: Limit = None,
    overwrite: Overwrite = False,
) -> None:
    """Tell ground glass from consolidation inside the infection.

    Writes classes.nii.gz (0, 1 ground glass, 2 consolidation; in the scan's format, PNG for
    slices), classes.json and, of DICOM, classes_seg.dcm with a segment for each class.
    """
    from ..errors import UserError
    from ..inference.segmenter import Segmenter
    from ..inference.shipped import CLASS_WEIGHTS, choose_model
    from ..research.classify import Classifier, classify_file

    if mask is not None and (weights, threshold, smallest_lesion_mm3) != (None, None, None):
        raise UserError(
            "classify: infection from where?; expected: --weights, with --threshold and --smallest_lesion_mm3 as you "
            "like, or --mask alone"
        )
    raised = limits_of(limit)
    classifier = Classifier(class_weights or CLASS_WEIGHTS, device, backend, precision)
    point = threshold, smallest_lesion_mm3, None
    infection: Segmenter | Path = mask or Segmenter(
        choose_model(weights=weights, device=device).path, device, *point, backend, precision
    )
    with raised:
        report = classify_file(scan, out, infection, classifier, intensity, volume, series, overwrite)
    if report["demonstration"]:
        print(report["demonstration"], file=sys.stderr)
    for name, found in report["measures"].items():
        size = f"{found['ml']:.1f} ml" if "ml" in found else f"{found['voxels']} voxels"
        print(f"{name.replace('_', ' ')}: {size}")
