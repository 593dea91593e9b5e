"""One scan from its file to its results: read, check, segment, measure, write."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..anatomy.lungs import Lungs, segment_lungs
from ..anatomy.tissue import segment_tissue
from ..errors import UserError
from ..files import digest, sha256
from ..inference.hounsfield import HounsfieldSlices
from ..inference.segmenter import PROBABILITY_STEPS, Segmenter
from ..inference.shipped import Choice, choose_model
from ..io.dicom.archive import unpacked
from ..io.limits import Limits
from ..io.limits import limits as current_limits
from ..io.output_names import KEY, holds_mask, read_report
from ..io.reading import read_scan
from ..io.volume import Note, Scan
from ..report.report import describe_model
from .checks import check_anatomy
from .given import Given
from .inputs import ScanInput, file_stamps, input_files
from .measuring import measure
from .priors import open_prior
from .result import Result, StageTimer, check_results, refuse_warnings

Progress = Callable[[int, int], Any]


@dataclass(frozen=True)
class Settings:
    """What a user chose for a run.

    Attributes:
        intensity: how stored values become HU, see `plan_hounsfield`; "auto": as the metadata of
            the weights state.
        probability: whether to write the probability map.
        lungs: the user's own lung mask, a folder of masks named as the cases, or weights (.pt) that
            find lungs; None: those that the lobes make up, else found in the scan by thresholds.
        lobes: the user's own lobe mask, see `find_lobes`; None: nothing is said of lobes.
        prior: the report of an earlier scan, see `find_prior`; None: no change is described.
        force: compares with a prior of another patient, or of other weights.
        series: which DICOM series, see `read_dicom`.
        volume: which volume of a 4-D file, from 1.
        strict: whether a warning refuses the case.
        sr: whether to write the DICOM SR of a DICOM scan.
        sc: whether to write the pictures of a DICOM scan as DICOM secondary capture images.
        pdf: whether to write the report as a PDF too, of a DICOM scan also as a DICOM object.
        limits: how much an input may hold; no part of what a result depends on.
    """

    intensity: str = "auto"
    probability: bool = False
    lungs: Path | None = None
    lobes: Path | None = None
    prior: Path | None = None
    force: bool = False
    series: str | None = None
    volume: int | None = None
    strict: bool = False
    sr: bool = True
    sc: bool = False
    pdf: bool = False
    limits: Limits = field(default_factory=current_limits)


class CaseSegmenter:
    """Segments scans from file to report with one loaded model.

    Args:
        segmenter: the model.
        settings: what the user chose; the attribute holds the intensity that is applied.
        choice: which weights these are and why, for the report; None: the user's own.

    Example:
        ::

            model = CaseSegmenter(Segmenter("models/model.pt"))
            (case,) = expand_inputs(["scan.nii.gz"], "out")
            report = model.run(case, Path("out") / case.folder)
            report["measures"]["infection"]
    """

    def __init__(self, segmenter: Segmenter, settings: Settings | None = None, choice: Choice | None = None) -> None:
        self.segmenter = segmenter
        self.choice = choice or choose_model(weights=segmenter.weights)
        chosen = settings or Settings()
        self.settings = replace(chosen, intensity=segmenter.intensity) if chosen.intensity == "auto" else chosen
        self.model = describe_model(segmenter)

    def key(self, case: ScanInput) -> str:
        """Return a hash of what a case depends on: input files, weights, settings, version.

        Raises:
            UserError: if a file that belongs to the input is missing.
        """
        try:
            stamps = file_stamps(input_files(case) + self.given(case.folder).files())
        except OSError as error:
            raise UserError(f"{case.source}: cannot be read ({error}); expected: a scan that you may read") from None
        chosen = {key: str(value) for key, value in asdict(self.settings).items() if key != "limits"}
        return digest([str(case.source.resolve()), stamps, self.model, chosen])

    def given(self, name: str) -> Given:
        """Find what the settings give for the case `name` beside its scan.

        Raises:
            UserError: if a folder holds nothing for this case.
        """
        return Given.find(self.settings.lungs, self.settings.lobes, self.settings.prior, name)

    def finished(self, case: ScanInput, folder: Path) -> dict[str, Any] | None:
        """Return the report of an earlier run for the same input, weights and settings, or None.

        None, too, where its mask is no longer there: results may have been copied in part.
        """
        report = read_report(folder)
        same = report is not None and report[KEY] == self.key(case)
        return report if same and holds_mask(folder) else None

    def run(
        self, case: ScanInput, folder: Path, overwrite: bool = False, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Segment a case and write its results.

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
        check_results(folder, overwrite)
        key = self.key(case)
        with ExitStack() as stack:
            result = self.predict(case, stack, progress)
            chosen = self.settings
            return result.save(folder, overwrite, key, sr=chosen.sr, sc=chosen.sc, pdf=chosen.pdf)

    def predict(self, case: ScanInput, stack: ExitStack, progress: Progress | None = None) -> Result:
        """Read and segment a case; nothing is written.

        Args:
            case: the input, see `expand_inputs`.
            stack: keeps what was unpacked for it, which saving a DICOM result needs.
            progress: called with the slices that were done now, and those in all.

        Raises:
            UserError: if the scan cannot be used.
        """
        timer = StageTimer()
        with timer("read"):
            scan = read_case(case, stack, self.settings.volume, self.settings.series)
        return self.segment(scan, self.given(case.folder), progress, timer)

    def segment(
        self,
        scan: Scan,
        given: Given | None = None,
        progress: Progress | None = None,
        timer: StageTimer | None = None,
    ) -> Result:
        """Check, segment and measure a scan; nothing is written.

        Args:
            scan: the scan; the first DICOM file must stay until the result is saved.
            given: files of the user beside the scan; None: there are none.
            progress: called with the slices that were done now, and those in all.
            timer: takes the time of the stages.

        Raises:
            UserError: if the scan cannot be used.
        """
        timer, given = timer or StageTimer(), given or Given()
        strict = self.settings.strict
        prior = open_prior(given.prior, scan, self.model, self.settings.force) if given.prior else None
        with timer("check"):
            slices = HounsfieldSlices(scan, self.settings.intensity)
            hu = slices.rounded()
            notes = [Note("intensity", remark, "assumption") for remark in slices.map.remarks]
            notes += prior.notes if prior else []
            refuse_warnings(scan, notes, strict)
        with timer("lungs"):
            known = scan.voxel_size_known
            seen = segment_tissue(hu, scan.spacing_lps) if known or self.segmenter.needs_anatomy(scan) else None
            own, lobes = given.read_masks(scan, slices, self.segmenter.device)
            anatomy = (seen, own or segment_lungs(seen)) if seen else None
            lungs = anatomy[1] if anatomy and known else own  # those found are judged and measured in mm
            notes += _findings(lungs) if lungs else []
        with timer("check"):
            notes += check_anatomy(seen, scan, lungs) if known and seen and lungs else []
            refuse_warnings(scan, notes, strict)
        step = (lambda count: progress(count, len(slices))) if progress else None
        done = self.segmenter.segment(scan, slices, self.settings.probability, anatomy, step, timer)
        notes += done.notes
        with timer("measure"):
            measures, found = measure(scan, None if slices.map.window else hu, done, self.segmenter, lungs, lobes)
            notes += found
        change, found = prior.compare(scan, measures) if prior else (None, [])
        notes += found
        if done.probability is not None:
            notes.append(self._calibrate(done.probability))
        refuse_warnings(scan, notes, strict)
        ood = self.segmenter.ood
        return Result(
            scan,
            done.mask,
            done.probability,
            hu,
            measures,
            notes,
            change=change,
            ood={"distance": done.ood_score, "limit": ood.limit(len(slices))} if ood else None,
            model=self.model,
            settings={
                "model": self.choice.describe(),
                "intensity": self.settings.intensity,
                "device": str(self.segmenter.device),
            },
            depends_on=self._depends_on(given),
            strict=strict,
            timer=timer,
        )

    def _calibrate(self, levels: NDArray[np.uint8]) -> Note:
        """Calibrate a probability map in place, as far as the metadata know how, and say so."""
        text, threshold = "is the network's own: how often it is right was not measured", self.segmenter.threshold
        if self.segmenter.curve:
            from ..inference.reliability import calibrated_levels  # SciPy's optimize and stats

            table = calibrated_levels(self.segmenter.curve, PROBABILITY_STEPS)
            for index in range(levels.shape[2]):  # no second map
                levels[..., index] = table[levels[..., index]]
            threshold = table[round(threshold * PROBABILITY_STEPS)] / PROBABILITY_STEPS
            text = "is calibrated on scans that no training saw: of voxels with the value 0.3 about 0.3 were infected"
        return Note("probability", f"The probability map {text}. The mask begins at {threshold:.3f}.", "assumption")

    def _depends_on(self, given: Given) -> str:
        """Return what else than the scan a result depends on, as text."""
        files = [sha256(file) for file in given.files()]
        return json.dumps([self.model, self.settings.intensity, files], sort_keys=True)


def _findings(lungs: Lungs) -> list[Note]:
    notes = [Note("own_lungs", text, "assumption") for text in lungs.notes]
    return notes + [Note("lungs", text, "warning") for text in (*lungs.doubts, *lungs.cuts)]


def read_case(case: ScanInput, stack: ExitStack, volume: int | None = None, series: str | None = None) -> Scan:
    """Read the scan of a case, of any format.

    Args:
        case: the input.
        stack: keeps what was unpacked for it until it is closed.
        volume: see `read_scan`.
        series: see `read_dicom`.

    Raises:
        UserError: if the scan cannot be used.
    """
    try:
        scan = _read(case, stack, volume, series)
    except UserError:
        raise
    except Exception as error:  # a reader meets what its authors did not expect
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{case.source}: cannot be read ({reason}); expected: a complete scan") from error
    scan.name = case.name
    return scan


def _read(case: ScanInput, stack: ExitStack, volume: int | None, series: str | None) -> Scan:
    if case.kind == "file":
        return read_scan(case.source, volume)
    from ..io.dicom.reading import read_dicom  # pydicom

    return read_dicom(stack.enter_context(unpacked(case.source)), series)
