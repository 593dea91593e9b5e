"""`python -m scripts segment INPUT... OUTPUT`: from a CT to a mask, numbers and pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import Backend, Device, Intensity, Precision, Series, SmallestLesion, Threshold, Views, Volume


def segment(
    inputs: Annotated[
        list[Path],
        Argument(metavar="INPUT", help="NIfTI, NRRD, MetaImage, DICOM folders or zips, PNG or JPG, folders of these."),
    ],
    output: Annotated[Path, Argument(help="Folder for the results, new or of an earlier call.")],
    weights: Annotated[Path | None, Option(help="Weights with their metadata; default: models/model.pt.")] = None,
    intensity: Intensity = "auto",
    threshold: Threshold = None,
    smallest_lesion_mm3: SmallestLesion = None,
    flips: Annotated[
        bool | None, Option(help="Test-time augmentation by flips, four times as slow; default: the metadata's.")
    ] = None,
    views: Views = None,
    probability: Annotated[bool, Option("--probability", help="Write the probability map too.")] = False,
    lungs: Annotated[
        Path | None,
        Option(help="Your lung mask on the scan's grid (1 right, 2 left, or one value), or a folder of them."),
    ] = None,
    series: Series = None,
    volume: Volume = None,
    device: Device = None,
    backend: Backend = "auto",
    precision: Precision = "auto",
    strict: Annotated[bool, Option("--strict", help="Refuse scans with warnings.")] = False,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Replace results that other settings or weights made.")
    ] = False,
    quiet: Annotated[bool, Option("--quiet", help="Print errors only.")] = False,
) -> None:
    """Find COVID-19 infection on chest CT: masks, reports, pictures.

    Each scan gets a folder in OUTPUT with all of them. A run that was stopped resumes with the same
    command.
    """
    from ..errors import UserError
    from ..inference.segmenter import Segmenter
    from ..inference.tta import chosen_flips
    from ..pipeline.batch import exit_code, segment_cases
    from ..pipeline.case import CaseSegmenter, Settings
    from ..pipeline.inputs import expand_inputs
    from ..report.report import DEMONSTRATION
    from ..transforms.intensity import parse_intensity
    from ..version import WEIGHTS
    from .progress import CaseProgress

    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: a file; expected: INPUT... OUTPUT, the last is the folder for the results")
    parse_intensity(intensity)
    if lungs and not lungs.exists():
        raise UserError(f"{lungs}: no such file or folder; expected: a lung mask, or a folder of them")
    cases = expand_inputs(inputs, output)
    point = threshold, smallest_lesion_mm3, chosen_flips(flips, views)
    segmenter = Segmenter(weights or WEIGHTS, device, *point, backend, precision)
    settings = Settings(
        intensity=intensity, probability=probability, lungs=lungs, series=series, volume=volume, strict=strict
    )
    model = CaseSegmenter(segmenter, settings)
    if model.model["synthetic"]:
        print(DEMONSTRATION, file=sys.stderr)
    with CaseProgress(len(cases), quiet) as bar:
        manifest = segment_cases(model, cases, output, overwrite, bar.step, bar.finish)
    if code := exit_code(manifest):
        raise SystemExit(code)
