"""The result of one scan, in memory and as the folder that `segment` writes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError, user_errors
from ..files import locked, replace_folder, unfinished_folder, write_json
from ..inference.segmenter import PROBABILITY_STEPS
from ..io.masks import mask_path, write_mask, write_probability
from ..io.output_names import KEY, PDF, REPORT, foreign_files, holds_mask
from ..io.volume import Affine, Note, Scan, canonical
from ..messages import some
from ..report.html import write_report_html
from ..report.lesion_pictures import LesionPicture, draw_lesions
from ..report.preview import draw_preview
from ..report.report import build_report
from ..settings import given_path

if TYPE_CHECKING:
    from .dicom_results import DicomResults


@dataclass
class StageTimer:
    """Seconds by stage; "write" and "report" run beside each other."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


@dataclass(eq=False)
class Result:
    """The infection that was found in one scan; nothing is written before `save`.

    Attributes:
        scan: the scan as it was stored, with what its reader found.
        mask: (X, Y, Z) uint8 in {0, 1}, on the scan's own grid.
        levels: (X, Y, Z) uint8, 255 times the probability; None unless asked for.
        hu: (X, Y, Z) int16 in HU, axes turned to LPS; no copy where the scan is stored so.
        measures: volumes, lesions, lungs, density and severity, as in `report.json`.
        notes: findings about the scan and its result.
        change: what changed since an earlier report, see `describe_change`; None without one.
        ood: "distance" of the scan from the training data and the usual "limit"; None where the
            metadata of the weights cannot tell.
        model: the weights, see `describe_model`.
        settings: which model and why, intensity, device.
        depends_on: weights and settings as text; with the source series they name DICOM objects.
        strict: whether a warning refuses the result.
        timer: seconds by stage.
    """

    scan: Scan
    mask: NDArray[np.uint8]
    levels: NDArray[np.uint8] | None
    hu: NDArray[np.int16]
    measures: Mapping[str, Any]
    notes: list[Note]
    change: Mapping[str, Any] | None
    ood: Mapping[str, float | None] | None
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    depends_on: str
    strict: bool
    timer: StageTimer

    @property
    def affine(self) -> Affine:
        """Voxel index to millimetres, RAS as in NIfTI, (4, 4) float64."""
        return self.scan.affine

    @property
    def probability(self) -> NDArray[np.float32] | None:
        """Probability of infection, (X, Y, Z) float32 in 255 steps; None unless asked for."""
        return None if self.levels is None else np.divide(self.levels, PROBABILITY_STEPS, dtype=np.float32)

    @property
    def warnings(self) -> list[str]:
        """Findings for which the result may be worse, one sentence each."""
        return list(dict.fromkeys(note.text for note in [*self.scan.notes, *self.notes] if note.kind == "warning"))

    def report(self) -> dict[str, Any]:
        """Return what `report.json` holds, see `build_report`."""
        return build_report(
            self.scan, self.measures, self.model, self.settings, self.timer.seconds, self.notes, self.ood, self.change
        )

    @user_errors()
    def save(
        self,
        folder: str | Path,
        overwrite: bool = False,
        key: str | None = None,
        *,
        sr: bool = True,
        sc: bool = False,
        pdf: bool = False,
    ) -> dict[str, Any]:
        """Write mask, report, preview and, for DICOM, DICOM objects; all of them or none.

        Args:
            folder: where the results go.
            overwrite: replaces results of this kind that are there.
            key: tells what the result depends on, see `CaseSegmenter.key`.
            sr: for DICOM, writes the measurements as a DICOM SR.
            sc: for DICOM, writes the pictures as DICOM secondary capture images.
            pdf: writes the report as a PDF too; for DICOM also as a DICOM object.

        Returns:
            The report.

        Raises:
            UserError: if the folder holds something else, or the disk takes nothing.
        """
        folder = given_path("folder", folder)
        check_results(folder, overwrite)
        with unfinished_folder(folder.parent) as temporary:
            target = temporary / "results"
            target.mkdir()
            report = self._write(target, sr, sc, pdf) | {KEY: key}
            write_json(target / REPORT, report)
            with locked(folder.parent):  # a run beside this one may have been faster
                check_results(folder, overwrite)
                replace_folder(target, folder)
        return report

    def _write(self, target: Path, sr: bool, sc: bool, pdf: bool) -> dict[str, Any]:
        dicom = self._dicom(target)
        with ThreadPoolExecutor(1) as beside:  # whose end waits for the masks: `save` cleans up after an error
            masks = beside.submit(self.timer("write")(self._write_masks), target, dicom, sr)
            with self.timer("report"):
                preview = self._draw_preview(target / "preview.png", self.scan.name)
            masks.result()
        with self.timer("report"):
            lesions = self._draw_lesions()
            pictures = {"Image with outlines" if self.scan.picture else "Most affected slices": preview}
            if sc and dicom:  # a title may name a person, who must not be in pictures of an archive
                dicom.write_pictures(self._draw_preview(target.parent / "preview.png", ""), lesions)
            if pdf:
                self._write_pdf(self._noted_report(dicom), pictures, lesions, target, dicom)
            report = self._noted_report(dicom)
            write_report_html(report, pictures, target / "report.html", lesions)
        return report | {"timings_s": {stage: round(seconds, 3) for stage, seconds in self.timer.seconds.items()}}

    def _noted_report(self, dicom: DicomResults | None) -> dict[str, Any]:
        """Return the report with what DICOM could not take; UserError for warnings if `strict`."""
        self.notes += [note for note in dicom.notes if note not in self.notes] if dicom else []
        refuse_warnings(self.scan, self.notes, self.strict)
        return self.report()

    def _write_pdf(
        self,
        report: Mapping[str, Any],
        pictures: Mapping[str, Path],
        lesions: Sequence[LesionPicture],
        target: Path,
        dicom: DicomResults | None,
    ) -> None:
        from ..report.pdf import write_report_pdf  # reportlab

        write_report_pdf(report, pictures, target / PDF, lesions)
        if dicom:
            dicom.write_pdf()

    def _dicom(self, target: Path) -> DicomResults | None:
        if self.scan.kind != "dicom":
            return None
        from .dicom_results import DicomResults, describe_maker  # highdicom

        maker = describe_maker(self.model, self.depends_on, self.scan)
        return DicomResults(self.scan, self.mask, self.measures, maker, target)

    def _draw_preview(self, path: Path, title: str) -> Path:
        return draw_preview(
            self.hu,
            canonical(self.mask, self.scan.affine),
            path,
            spacing=self.scan.known_spacing_lps,
            title=title,
            least_slice_share=self.model["operating_point"]["least_slice_share"],
            oriented=not self.scan.picture,
        )

    def _draw_lesions(self) -> list[LesionPicture]:
        if self.scan.picture:  # the preview shows all of it
            return []
        mask = canonical(self.mask, self.scan.affine)
        return draw_lesions(self.hu, mask, self.measures, self.scan.known_spacing_lps)

    def _write_masks(self, target: Path, dicom: DicomResults | None, sr: bool) -> None:
        write_mask(self.mask, self.scan, mask_path(target, self.scan))
        if self.levels is not None:
            write_probability(self.levels, self.scan, mask_path(target, self.scan, "probability"))
        if dicom:
            dicom.write_measures(sr)


def refuse_warnings(scan: Scan, notes: list[Note], strict: bool) -> None:
    """Refuse a scan with warnings where `strict` is set.

    Raises:
        UserError: holds the warnings.
    """
    warnings = [note.text for note in [*scan.notes, *notes] if note.kind == "warning"]
    if strict and warnings:
        raise UserError(f"{scan.path}: {' '.join(warnings)}; expected with --strict: a scan without warnings")


def check_results(folder: Path, overwrite: bool) -> None:
    """Refuse a folder with other files than results, and results unless to be replaced.

    Raises:
        UserError: names what is there.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file; expected: another OUTPUT")
    if not folder.exists() or not any(folder.iterdir()):
        return
    foreign = foreign_files(folder)
    if foreign:
        raise UserError(f"{folder}: holds other results or files ({some(foreign)}); expected: another OUTPUT")
    if not overwrite:
        others = "results of another input, other weights or settings"
        found = f"holds {others if holds_mask(folder) else 'a report without its mask'}"
        raise UserError(f"{folder}: {found}; expected: another OUTPUT, or --overwrite to replace them")
