"""`python -m scripts segment INPUT... OUTPUT`: from a CT to a mask, numbers and pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import (
    Backend,
    Device,
    Intensity,
    Limit,
    Model,
    Pdf,
    Precision,
    Sc,
    Series,
    SmallestLesion,
    Sr,
    Threshold,
    Views,
    Volume,
)


def segment(
    inputs: Annotated[
        list[str],
        Argument(
            metavar="INPUT",
            help="NIfTI, NRRD, MetaImage, DICOM folders or zips, PNG or JPG, folders of these; DICOMweb addresses.",
        ),
    ],
    output: Annotated[Path, Argument(help="Folder for the results, new or of an earlier call.")],
    weights: Annotated[Path | None, Option(help="Your weights with their metadata, in place of --model.")] = None,
    model: Model = "auto",
    intensity: Intensity = "auto",
    threshold: Threshold = None,
    smallest_lesion_mm3: SmallestLesion = None,
    flips: Annotated[
        bool | None, Option(help="Test-time augmentation by flips, up to four times as slow; default: the metadata's.")
    ] = None,
    views: Views = None,
    probability: Annotated[bool, Option("--probability", help="Write the probability map too.")] = False,
    sr: Sr = True,
    sc: Sc = False,
    pdf: Pdf = False,
    lungs: Annotated[
        Path | None,
        Option(
            help="Lungs in place of those by thresholds: your mask on the scan's grid (1 right, 2 left, or one "
            "value), a folder of masks, or weights (.pt) of a network that finds lungs."
        ),
    ] = None,
    lobes: Annotated[
        Path | None,
        Option(help="Your lobe mask on the scan's grid (TotalSegmentator's, or 1 to 5), or a folder of them."),
    ] = None,
    prior: Annotated[
        Path | None, Option(help="Earlier report.json of the patient, its folder, or a folder of results by case.")
    ] = None,
    force: Annotated[
        bool, Option("--force", help="Compare with a prior of another patient, other weights or threshold.")
    ] = False,
    keep_outside: Annotated[
        bool,
        Option("--keep-outside", help="Keep marks outside of the body and the lungs, which are removed otherwise."),
    ] = False,
    series: Series = None,
    volume: Volume = None,
    device: Device = None,
    backend: Backend = "auto",
    precision: Precision = "auto",
    strict: Annotated[bool, Option("--strict", help="Refuse scans with warnings.")] = False,
    limit: Limit = None,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Replace results that other settings or weights made.")
    ] = False,
    workers: Annotated[int, Option(min=1, help="Processes on this machine, each with the model and a scan.")] = 1,
    scheduler: Annotated[
        str | None, Option(metavar="ADDRESS", help="Segment on the Dask cluster of this scheduler (docs/cluster.md).")
    ] = None,
    stow: Annotated[
        str | None, Option(metavar="URL", help="DICOMweb server that gets the DICOM results (docs/pacs.md).")
    ] = None,
    quiet: Annotated[bool, Option("--quiet", help="Print errors only.")] = False,
) -> None:
    """Find COVID-19 infection on chest CT: masks, reports, pictures.

    Each scan gets a folder in OUTPUT with all of them. A run that was stopped resumes with the same
    command.
    """
    from ..errors import UserError
    from ..inference.building import read_lung_metadata
    from ..inference.lung_network import SUFFIX
    from ..inference.shipped import choose_model
    from ..inference.tta import chosen_flips
    from ..io.limits import limited, parse_limits
    from ..pacs.dicomweb import check_server, is_address, retrieve, stored
    from ..pipeline.batch import exit_code, record
    from ..pipeline.case import Settings
    from ..pipeline.inputs import check_choice, check_output, expand_inputs
    from ..pipeline.job import Job
    from ..pipeline.priors import single_report
    from ..pipeline.start import started
    from ..report.report import DEMONSTRATION
    from ..transforms.hounsfield import parse_intensity
    from .progress import CaseProgress, resumable

    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: a file; expected: INPUT... OUTPUT, the last is the folder for the results")
    if scheduler and workers > 1:
        raise UserError("both --workers and --scheduler; expected: one of them")
    if stow:
        check_server(stow)
    parse_intensity(intensity)
    for path, what in ((lungs, "a lung mask, weights"), (lobes, "a lobe mask"), (prior, "a report.json")):
        if path and not path.exists():
            raise UserError(f"{path}: no such file or folder; expected: {what}, or a folder of them")
    if lungs and lungs.suffix == SUFFIX:
        read_lung_metadata(lungs)  # refuses other weights before any scan is read
    limits, passed_over = parse_limits(limit or []), list[str]()
    choice = choose_model(model, weights and weights.absolute(), device)
    with limited(limits):
        paths = [one for one in inputs if not is_address(one)]
        if len(paths) < len(inputs):  # mistakes are told before anything is downloaded
            check_output(output, expand_inputs(paths, output) if paths else [])
        places = [retrieve(one, output) if is_address(one) else one for one in inputs]
        cases = expand_inputs(places, output, passed_over)
        check_output(output, cases)
    check_choice(cases, series, volume)
    if prior and single_report(prior) and len(cases) > 1:
        raise UserError(f"{prior}: one report for {len(cases)} scans; expected: one scan, or a folder of results")
    for mask in (lungs, lobes):
        if mask and mask.is_file() and mask.suffix != SUFFIX and len(cases) > 1:
            raise UserError(f"{mask}: one mask for {len(cases)} scans; expected: one scan, or a folder of masks")
    arguments = {
        "device": device,
        "threshold": threshold,
        "smallest_lesion_mm3": smallest_lesion_mm3,
        "test_time_flips": chosen_flips(flips, views),
        "backend": backend,
        "precision": precision,
        "keep_outside": keep_outside,
    }
    given = lungs and lungs.absolute(), lobes and lobes.absolute(), prior and prior.absolute()
    settings = Settings(intensity, probability, *given, force, series, volume, strict, sr, sc, pdf, limits)
    job = Job(choice, tuple(arguments.items()), settings, output.absolute(), overwrite)
    bar = CaseProgress(len(cases), quiet, one_bar=bool(scheduler) or workers > 1)
    with resumable(bar, output), started(job, cases, workers, scheduler, bar.step) as (entries, description):
        if description["model"]["synthetic"]:
            print(DEMONSTRATION, file=sys.stderr)
        with bar:
            ended = stored(entries, output, stow) if stow else entries
            manifest = record(ended, description | {"passed_over": passed_over}, cases, output, bar.finish)
    if code := exit_code(manifest):
        raise SystemExit(code)
