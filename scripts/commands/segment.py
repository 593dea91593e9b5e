"""`python -m scripts segment INPUT... OUTPUT`: from a CT to a mask, numbers and pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import UserError
from ..inference.segmenter import Segmenter
from ..pipeline.batch import exit_code, segment_cases
from ..pipeline.case import CaseSegmenter, Settings
from ..pipeline.inputs import Case, expand_inputs
from ..report.report import DEMONSTRATION
from ..transforms.intensity import parse_intensity
from ..version import BUNDLE


def segment(
    *paths: str,
    weights: str | None = None,
    intensity: str = "auto",
    threshold: float | None = None,
    smallest_lesion_mm3: float | None = None,
    flips: bool | None = None,
    probability: bool = False,
    lungs: str | None = None,
    series: str | None = None,
    volume: int | None = None,
    device: str | None = None,
    strict: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Finds COVID-19 infection on chest CT; each scan gets a folder in OUTPUT with mask, report, picture.

    A run that was stopped is started again with the same command and goes on where it was.

    Args:
        *paths: INPUT... OUTPUT: scans (NIfTI, NRRD, MetaImage, PNG or JPG slices), DICOM folders or
            zips, or folders of these; then the folder to write.
        weights: trained weights with their metadata; models/model.pt unless given.
        intensity: auto, hu, or window:LO,HI for an export that was mapped from that HU window.
        threshold: probability from which on a voxel is infection; the metadata's unless given.
        smallest_lesion_mm3: lesions below this volume are left out; the metadata's unless given.
        flips: mean over four mirror images, four times as slow; as the metadata says unless given.
        probability: also writes the probability map.
        lungs: your own lung mask on the scan's grid (1 right, 2 left, or one value), or a folder of
            such masks.
        series: which DICOM series, where a folder holds several.
        volume: which volume of a 4-D file, from 1.
        device: cpu, cuda, cuda:1, mps; the first that is there unless given.
        strict: refuses scans with warnings.
        overwrite: replaces results that other settings or weights made.
        quiet: prints errors only.
    """
    if len(paths) < 2:
        raise UserError(f"segment: {len(paths)} paths; expected: INPUT... OUTPUT")
    *sources, output = (Path(path) for path in paths)
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: a file; expected: INPUT... OUTPUT, the last is the folder for the results")
    parse_intensity(intensity)
    if lungs and not Path(lungs).exists():
        raise UserError(f"{lungs}: no such lung mask or folder of lung masks")
    cases = expand_inputs(sources, output)
    file = Path(weights) if weights else BUNDLE / "models/model.pt"
    segmenter = Segmenter(file, device, threshold, smallest_lesion_mm3, flips)
    settings = Settings(
        intensity=intensity,
        probability=probability,
        lungs=Path(lungs) if lungs else None,
        series=series,
        volume=volume,
        strict=strict,
    )
    model = CaseSegmenter(segmenter, settings)
    if model.model["synthetic"]:
        print(DEMONSTRATION, file=sys.stderr)
    with _Bar(len(cases), quiet) as bar:
        manifest = segment_cases(model, cases, output, overwrite, bar.step, bar.finish)
    if code := exit_code(manifest):
        raise SystemExit(code)


class _Bar:
    """One progress bar of slices for the case at work, one line for each case that ended."""

    def __init__(self, cases: int, quiet: bool) -> None:
        self.cases = cases
        self.ended = 0
        self.quiet = quiet
        self.bar: tqdm[Any] | None = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def step(self, case: Case, done: int, of: int) -> None:
        """Moves the bar of a case on by `done` slices."""
        if self.bar is None:
            label = f"{case.folder} ({self.ended + 1}/{self.cases})"
            self.bar = tqdm(total=of, desc=label, unit="slice", leave=False, disable=self.quiet)
        self.bar.update(done)

    def finish(self, case: Case, entry: dict[str, Any]) -> None:
        """Says how a case ended."""
        self._close()
        self.ended += 1
        if entry["status"] in ("refused", "failed"):
            print(f"error: {entry['message']}", file=sys.stderr)
        elif not self.quiet:
            warnings = f", {entry['warnings']} warnings" if entry["warnings"] else ""
            print(f"{case.folder}: {entry['status']}{warnings}, {', '.join(entry['files'])}")

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
