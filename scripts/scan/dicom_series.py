"""Which series a folder holds, and which of them is the CT scan."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from scripts.errors import UserError
from scripts.scan.dicom_header import Slice, number, read_slices, text
from scripts.scan.results import walk_files
from scripts.scan.volume import Note

_CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
_AXIAL = np.cos(np.radians(45))  # least share of the body's long axis in the normal of an axial slice


@dataclass(frozen=True)
class Series:
    """The slices that share a SeriesInstanceUID.

    Attributes:
        uid: SeriesInstanceUID.
        number: SeriesNumber; None if absent.
        modality: "CT", "MR", ...; of CT images that do not say, "CT".
        slices: in the order of the files' names.
    """

    uid: str
    number: int | None
    modality: str
    slices: list[Slice]

    @property
    def id(self) -> str:
        """Eight digits that tell it from others without naming anybody: the start of the UID's SHA-256."""
        return hashlib.sha256(self.uid.encode()).hexdigest()[:8]

    @property
    def ct(self) -> bool:
        """Whether it holds CT images, not pictures or reports made from them."""
        return self.modality == "CT" and self.slices[0].header.SOPClassUID in _CT_CLASSES

    @property
    def drawback(self) -> str:
        """Why it is not taken for the scan where there is another; empty for a candidate."""
        first = self.slices[0]
        if all(one.localizer for one in self.slices):
            return "localizer"
        if len(self.slices) == 1 and "DERIVED" in text(first.header, "ImageType").upper():
            return "one derived image"
        if first.orientation and abs(np.cross(first.orientation[:3], first.orientation[3:])[2]) < _AXIAL:
            return "not axial"
        return ""

    def describe(self) -> str:
        """One phrase for the list that a user chooses from; nothing in it names a person."""
        first = self.slices[0]
        words = [] if self.ct else [f"{self.modality}, {first.header.SOPClassUID.name}"]
        words += [f"{len(self.slices)} {'slice' if len(self.slices) == 1 else 'slices'}"]
        words += [f"{first.thickness:g} mm thick"] if first.thickness else []
        kernel = text(first.header, "ConvolutionKernel")
        words += [f"kernel {kernel}"] if kernel else []
        words += [self.drawback] if self.drawback else []
        return f"series {self.number if self.number is not None else '?'} (id {self.id}): {', '.join(words)}"


def list_series(folder: Path) -> list[Series]:
    """Lists the DICOM series in a folder and its subfolders, or the one of a file; reads no pixels.

    Hidden files, DICOMDIR, results of earlier runs and files that are not DICOM are passed over; names and extensions
    do not matter.

    Returns:
        The series, sorted by SeriesNumber; none where there is no DICOM file.

    Raises:
        UserError: if the folder is absent or a DICOM file is damaged.
    """
    if not folder.exists():
        raise UserError(f"{folder}: no such file or folder; accepted: a folder of DICOM files")
    files = [folder] if folder.is_file() else sorted(file for _, files in walk_files(folder) for file in files)
    found: dict[str, list[Slice]] = defaultdict(list)
    for file in files:
        for one in read_slices(file):
            found[str(one.header.SeriesInstanceUID)].append(one)
    series = [_series(uid, slices) for uid, slices in found.items()]
    return sorted(series, key=lambda one: (one.number is None, one.number or 0, one.uid))


def _series(uid: str, slices: list[Slice]) -> Series:
    header = slices[0].header
    series_number = number(header, "SeriesNumber")
    modality = text(header, "Modality") or ("CT" if header.SOPClassUID in _CT_CLASSES else "unknown modality")
    return Series(uid, None if series_number is None else int(series_number), modality, slices)


def choose_series(folder: Path, found: list[Series], wanted: str | None = None) -> tuple[Series, list[Note]]:
    """Chooses the CT scan among the series of a folder.

    Args:
        folder: where they were found, for messages.
        found: what `list_series` returned.
        wanted: SeriesNumber, SeriesInstanceUID or `Series.id`; None takes the only axial CT series.

    Raises:
        UserError: if there is no CT, if `wanted` names none or several, or if nobody chose among several.
    """
    images = [one for one in found if one.ct]
    if not images:
        kinds = ", ".join(sorted({one.modality for one in found})) or "no DICOM images"
        raise UserError(f"{folder}: {kinds}; accepted: CT images (CT Image Storage)")
    if wanted is not None:
        return _the_only(folder, images, [one for one in images if _is_named(one, wanted)], wanted), []
    candidates = [one for one in images if not one.drawback] if len(images) > 1 else images
    chosen = _the_only(folder, images, candidates, None)
    left = "; ".join(one.describe() for one in found if one is not chosen)
    words = f"Series {chosen.number} was taken as the only axial CT scan; left out: {left}."
    return chosen, [Note("series_chosen", words, "assumption")] if left else []


def _is_named(series: Series, wanted: str) -> bool:
    return wanted.strip() in (series.uid, series.id, str(series.number))


def _the_only(folder: Path, images: list[Series], matches: list[Series], wanted: str | None) -> Series:
    if len(matches) == 1:
        return matches[0]
    shown = matches or images
    asked = "" if wanted is None else f" {'several' if matches else 'none'} of them --series {wanted};"
    numbers = [one.number for one in shown]
    unique = len(set(numbers)) == len(numbers) and None not in numbers
    how = f"--series {numbers[0]}" if unique else f"--series {shown[0].id}"
    choices = "; ".join(one.describe() for one in shown)
    raise UserError(f"{folder}: {len(images)} CT series,{asked} accepted: one, chosen with e.g. {how}, of {choices}")
