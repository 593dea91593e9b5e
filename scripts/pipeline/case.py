"""One scan from its file to its results: read, check, segment, measure, write; all of it or nothing."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..anatomy.lungs import Lungs, segment_lungs
from ..anatomy.tissue import Overview, look_over
from ..errors import UserError
from ..files import replace_folder, unfinished_folder, write_json
from ..inference.segmenter import HounsfieldSlices, Segmentation, Segmenter
from ..io.dicom.archive import unpacked
from ..io.dicom.reading import read_dicom
from ..io.dicom.seg import write_dicom_seg
from ..io.masks import mask_path, probability_path, write_probability, write_scan_mask
from ..io.output_names import KEY, REPORT, foreign_files, read_report, walk_files
from ..io.reading import read_scan, scan_files
from ..io.volume import Note, Scan, canonical
from ..report.html import write_report_html
from ..report.measure import measure
from ..report.preview import draw_preview
from ..report.report import build_report, describe_model
from .checks import check_anatomy
from .inputs import Case
from .lung_masks import find_lung_mask, read_lung_mask

MUCH_OUTSIDE_PERCENT = 20
"""Share of the infection outside of the lungs from which on a person should look at it before any
number."""


@dataclass(frozen=True)
class Settings:
    """What a user chose for a run.

    Attributes:
        intensity: how stored values become HU, see `plan_hounsfield`.
        probability: whether to write the probability map.
        lungs: the user's own lung mask, or a folder of masks named as the cases; None: found in the
            scan.
        series: which DICOM series, see `read_dicom`.
        volume: which volume of a 4-D file, from 1.
        strict: whether a warning refuses the case.
    """

    intensity: str = "auto"
    probability: bool = False
    lungs: Path | None = None
    series: str | None = None
    volume: int | None = None
    strict: bool = False


@dataclass
class Watch:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


class CaseSegmenter:
    """Segments scans from file to report with one loaded model.

    Args:
        segmenter: the model.
        settings: what the user chose.

    Example:
        ::

            model = CaseSegmenter(Segmenter("models/model.pt"))
            (case,) = expand_inputs(["scan.nii.gz"], "out")
            report = model.run(case, Path("out") / case.folder)
            report["measures"]["infection"]
    """

    def __init__(self, segmenter: Segmenter, settings: Settings | None = None) -> None:
        self.segmenter = segmenter
        self.settings = settings or Settings()
        self.model = describe_model(segmenter)

    def key(self, case: Case) -> str:
        """Returns what the result of a case depends on, as a hash: input files, weights, settings, version.

        Raises:
            UserError: if a file that belongs to the input is missing.
        """
        if case.kind == "file":
            files = scan_files(case.source)
        else:
            folder = case.source.is_dir()
            files = [file for _, found in walk_files(case.source) for file in found] if folder else [case.source]
        if self.settings.lungs is not None:
            files += scan_files(find_lung_mask(self.settings.lungs, case.folder))
        stamps = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        chosen = {key: str(value) for key, value in asdict(self.settings).items()}
        text = json.dumps([str(case.source.resolve()), stamps, self.model, chosen], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def finished(self, case: Case, folder: Path) -> dict[str, Any] | None:
        """Returns the report of an earlier run with this very input, weights and settings, or None."""
        report = read_report(folder)
        return report if report is not None and report[KEY] == self.key(case) else None

    def run(
        self, case: Case, folder: Path, overwrite: bool = False, progress: Callable[[int, int], Any] | None = None
    ) -> dict[str, Any]:
        """Segments a case and writes its results.

        Args:
            case: the input, see `expand_inputs`.
            folder: where the results go; it appears when all of them are complete.
            overwrite: replaces the results of an earlier run there.
            progress: called with the slices that were done now, and those in all.

        Returns:
            The report.

        Raises:
            UserError: if the scan cannot be used, or the folder holds something else.
        """
        _check_folder(folder, overwrite)
        key = self.key(case)
        with unfinished_folder(folder.parent) as temporary, ExitStack() as stack:
            target = temporary / "results"
            target.mkdir()
            report = self._process(case, target, stack, progress or (lambda *_: None)) | {KEY: key}
            write_json(target / REPORT, report)
            replace_folder(target, folder)
        return report

    def _process(
        self, case: Case, target: Path, stack: ExitStack, progress: Callable[[int, int], Any]
    ) -> dict[str, Any]:
        watch = Watch()
        with watch("read"):
            scan = read_case(case, stack, self.settings.volume, self.settings.series)
        with watch("check"):
            slices = HounsfieldSlices(scan, self.settings.intensity)
            hu = slices.rounded()
            notes = [Note("intensity", remark, "assumption") for remark in slices.map.remarks]
            self._refuse_warnings(scan, notes)
        with watch("lungs"):
            measurable = scan.voxel_size_known and not scan.picture
            seen = look_over(hu, scan.spacing_lps) if measurable else None
            lungs, found = self._lungs(case, scan, seen)
            notes += found
        with watch("check"):
            notes += check_anatomy(seen, scan, lungs) if seen and lungs else []
            self._refuse_warnings(scan, notes)
        anatomy = (seen, lungs) if seen and lungs else None
        done = self.segmenter.segment(
            scan, slices, self.settings.probability, anatomy, lambda count: progress(count, len(slices)), watch
        )
        notes += done.notes
        mask = canonical(done.mask, scan.affine)
        with watch("measure"):
            spacing = scan.spacing_lps if scan.voxel_size_known else None
            hu_slices = None if slices.map.window else lambda z: hu[..., z]
            measures = measure(hu_slices, mask, spacing, lungs, self.segmenter.least_slice_share)
            notes += _outside(measures)
        with watch("write"):
            notes += self._write_masks(scan, done, target)
        self._refuse_warnings(scan, notes)
        with watch("report"):
            draw_preview(hu, mask, target / "preview.png", spacing=spacing, title=scan.name)
            settings = {"intensity": self.settings.intensity, "device": str(self.segmenter.device)}
            familiar = self.segmenter.familiarity
            strangeness = {"distance": done.distance, "limit": familiar.limit} if familiar else None
            report = build_report(scan, measures, self.model, settings, watch.seconds, notes, strangeness)
            write_report_html(report, {"Most affected slices": target / "preview.png"}, target / "report.html")
        return report | {"timings_s": {stage: round(seconds, 3) for stage, seconds in watch.seconds.items()}}

    def _refuse_warnings(self, scan: Scan, notes: list[Note]) -> None:
        warnings = [note.text for note in [*scan.notes, *notes] if note.kind == "warning"]
        if self.settings.strict and warnings:
            raise UserError(f"{scan.path}: {' '.join(warnings)} Accepted with --strict: a scan without warnings")

    def _lungs(self, case: Case, scan: Scan, seen: Overview | None) -> tuple[Lungs | None, list[Note]]:
        if self.settings.lungs is not None:
            lungs = read_lung_mask(find_lung_mask(self.settings.lungs, case.folder), scan)
        elif seen is not None:
            lungs = segment_lungs(seen)
        else:
            return None, []
        notes = [Note("own_lungs", text, "assumption") for text in lungs.notes]
        return lungs, notes + [Note("lungs", text, "warning") for text in (*lungs.doubts, *lungs.cuts)]

    def _write_masks(self, scan: Scan, done: Segmentation, target: Path) -> list[Note]:
        path = mask_path(target, scan)
        write_scan_mask(done.mask, scan, path)
        if done.probability is not None:
            write_probability(done.probability, scan, probability_path(target, scan))
        if scan.kind != "dicom":
            return []
        try:
            write_dicom_seg(
                done.mask,
                scan,
                target / "infection_seg.dcm",
                algorithm="lung_infection_ct_segmentation",
                version=str(self.model["version"]),
                description="COVID-19 infection" + (", DEMONSTRATION WEIGHTS" if self.model["synthetic"] else ""),
            )
        except UserError as error:
            return [Note("no_dicom_seg", f"No DICOM SEG was written: {error}", "warning")]
        return []


def read_case(case: Case, stack: ExitStack, volume: int | None = None, series: str | None = None) -> Scan:
    """Reads the scan of a case, of any format.

    Args:
        case: the input.
        stack: keeps what was unpacked for it until it is closed.
        volume: see `read_scan`.
        series: see `read_dicom`.

    Raises:
        UserError: if the scan cannot be used.
    """
    if case.kind == "file":
        scan = read_scan(case.source, volume)
    else:
        scan = read_dicom(stack.enter_context(unpacked(case.source)), series)
    scan.name = case.name
    return scan


def _check_folder(folder: Path, overwrite: bool) -> None:
    """Refuses a folder that holds more than results of earlier runs, and these unless they may be replaced."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file; expected: another OUTPUT")
    if not folder.exists() or not any(folder.iterdir()):
        return
    foreign = foreign_files(folder)
    if foreign:
        names = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise UserError(f"{folder}: holds other results or files ({names}); expected: another OUTPUT")
    if not overwrite:
        found = "holds results of another input, other weights or settings"
        raise UserError(f"{folder}: {found}; expected: another OUTPUT, or --overwrite to replace them")


def _outside(measures: Mapping[str, Any]) -> list[Note]:
    """Warns where much of what was outlined lies outside of the lungs: bowel, soft tissue, or lungs found wrongly."""
    percent = measures["infection"].get("outside_lungs_percent") or 0.0
    if percent < MUCH_OUTSIDE_PERCENT:
        return []
    text = f"{percent:.0f} % of the outlined infection lies outside of the lungs as segmented: look at the picture."
    return [Note("outside_lungs", text, "warning")]
