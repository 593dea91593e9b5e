"""What goes back into the study of a DICOM scan: SEG, SR, secondary capture images, PDF."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..io.dicom.derived import Maker
from ..io.dicom.pdf import write_dicom_pdf
from ..io.dicom.sc import Picture, write_dicom_sc
from ..io.dicom.seg import write_dicom_seg
from ..io.dicom.sources import Sources, read_sources
from ..io.dicom.sr import write_dicom_sr
from ..io.output_names import DICOM_PDF, PDF, SC, SEG, SR
from ..io.volume import Note, Scan, canonical
from ..report.key_images import draw_key_image, draw_overview
from ..report.lesion_pictures import LesionPicture
from ..report.preview import SHOWN_SLICES, choose_slices
from ..report.report import plain
from ..report.wording import TITLE, certain


class DicomResults:
    """Writes the DICOM objects of one result into a folder; the scan's headers are read once.

    Args:
        scan: the scan; its first file must still be there.
        mask: what was found in it, (X, Y, Z) in {0, 1}, on its own grid.
        measures: of the mask, as in `report.json`.
        maker: the software and what the result depends on.
        target: the folder.

    Attributes:
        notes: why something was not written.
    """

    def __init__(
        self, scan: Scan, mask: NDArray[np.uint8], measures: Mapping[str, Any], maker: Maker, target: Path
    ) -> None:
        self._scan, self._mask, self._measures = scan, mask, measures
        self._maker, self._target = maker, target
        self._sources: Sources | None = None
        self.notes: list[Note] = []

    def write_measures(self, sr: bool) -> None:
        """Write the SEG, and the SR if wanted; without a SEG no other object is written."""
        seg = self._target / SEG
        try:
            sources = read_sources(self._scan)
            write_dicom_seg(self._mask, sources, seg, self._maker)
            self._sources = sources
        except UserError as error:
            text = f"No DICOM SEG, nor another DICOM object, was written: {error}"
            self.notes.append(Note("no_dicom_seg", text, "warning"))
            return
        if sr:
            with self._noted("SR"):
                write_dicom_sr(certain(plain(self._measures)), seg, sources, self._target / SR, self._maker)

    def write_pictures(self, preview: Path, lesions: Sequence[LesionPicture]) -> None:
        """Write the preview and the pictures of lesions as secondary capture images.

        Args:
            preview: the preview without a title, which may name a person.
            lesions: what `draw_lesions` gives.
        """
        if self._sources is None:
            return
        with self._noted("SC"):
            for number, picture in enumerate(self._pictures(preview, lesions), 1):
                write_dicom_sc(picture, number, self._sources, self._target / SC.format(number), self._maker)

    def write_pdf(self) -> None:
        """Write the PDF of the folder as a DICOM object."""
        if self._sources is not None:
            with self._noted("PDF"):
                write_dicom_pdf(self._target / PDF, TITLE, self._sources, self._target / DICOM_PDF, self._maker)

    @contextmanager
    def _noted(self, kind: str) -> Iterator[None]:
        """Let an object that the headers do not allow cost no other result."""
        try:
            yield
        except UserError as error:
            self.notes.append(Note(f"no_dicom_{kind.lower()}", f"No DICOM {kind} was written: {error}", "warning"))

    def _pictures(self, preview: Path, lesions: Sequence[LesionPicture]) -> Iterator[Picture]:
        scan, stored = self._scan, self._scan.axial_slices()

        def places(slices: Sequence[int]) -> list[int]:  # of axial slices among the stored ones
            return list(range(scan.values.shape[2])) if stored is None else [stored[z] for z in slices]

        shown = choose_slices(canonical(self._mask, scan.affine).view(np.bool_), SHOWN_SLICES)
        yield Picture(draw_overview(preview), "Most affected slices", places(shown), axial=False)
        listed = self._measures["lesions"]["lesions"][: len(lesions)]  # more of them than are drawn
        for lesion, found in zip(lesions, listed, strict=True):
            slices = places([found["largest_slice_from_inferior"] - 1])
            yield Picture(draw_key_image(lesion), lesion.caption, slices, axial=True)


def describe_maker(model: Mapping[str, Any], depends_on: str, scan: Scan) -> Maker:
    """Describe the software of a result, with weights and settings that the result depends on."""
    point = model["operating_point"]
    return Maker(
        version=str(model["version"]),
        depends_on=json.dumps([depends_on, scan.facts.get("series_id")]),
        synthetic=model["synthetic"],
        parameters=(
            f"SHA-256 of the weights: {model['weights_sha256']}",
            f"decision threshold: {point['threshold']:.6g}",
            f"smallest lesion in mm3: {point['smallest_lesion_mm3']:.6g}",
        ),
    )
