"""Which series a folder holds, and which of them is the CT scan; `geometry` orders its slices."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import UserError
from ...messages import counted
from ..output_names import walk_files
from ..volume import Note
from .header import Slice, get_number, get_text, read_slices
from .parts import Part, describe_objects, separate, set_aside

_AXIAL = np.cos(np.radians(45))  # least share of the body's long axis in the normal of an axial slice
_LISTED = 6  # series that a message describes; the rest is counted
_FEWEST_JOINED = 3  # slices with a SeriesInstanceUID each that are taken for one scan


@dataclass(frozen=True)
class Series:
    """Slices that share a SeriesInstanceUID and make one volume, or a part of such a series."""

    uid: str  # SeriesInstanceUID; empty for objects that belong to no series
    number: int | None  # SeriesNumber; None if absent
    modality: str  # "CT", "MR", ...; of CT images that do not say, "CT"
    part: Part  # its slices, in an order that the names of files do not change
    notes: tuple[Note, ...] = ()  # what was left out of the series, or joined

    @property
    def slices(self) -> list[Slice]:
        """The slices of its part."""
        return self.part.slices

    @property
    def id(self) -> str:
        """Eight digits of the UID's SHA-256, an identifier that names nobody."""
        return hashlib.sha256((self.uid + self.part.label).encode()).hexdigest()[:8]

    @property
    def ct(self) -> bool:
        """Whether it holds CT images, not pictures or reports made from them."""
        return self.modality == "CT" and all(one.ct for one in self.slices)

    @property
    def drawback(self) -> str:
        """Why it is not taken for the scan where there is another; empty for a candidate."""
        first = self.slices[0]
        if all(one.localizer for one in self.slices):
            return "localizer"
        if len(self.slices) == 1 and "DERIVED" in get_text(first.header, "ImageType").upper():
            return "one derived image"
        if first.orientation and abs(np.cross(first.orientation[:3], first.orientation[3:])[2]) < _AXIAL:
            return "not axial"
        return ""

    def describe(self) -> str:
        """One phrase for the list that a user chooses from; nothing in it names a person."""
        first = self.slices[0]
        words = [] if self.ct else [f"{self.modality}, {first.header.SOPClassUID.name}"]
        words += [self.part.label] if self.part.label else []
        words += [counted(len(self.slices), "slice" if first.ct else "object")]
        words += [f"{first.thickness:g} mm thick"] if first.thickness else []
        kernel = get_text(first.header, "ConvolutionKernel")[:40]
        words += [f"kernel {kernel}"] if kernel else []
        words += [self.drawback] if self.drawback else []
        return f"series {self.number if self.number is not None else '?'} (id {self.id}): {', '.join(words)}"


def list_series(folder: Path) -> list[Series]:
    """List the DICOM series in a folder and its subfolders, or the one of a file; read no pixels.

    Hidden files, DICOMDIR, results of earlier runs and files that are not DICOM are passed over;
    names and extensions do not matter. A CT series whose slices were not made together comes in
    parts, see `separate`. CT images that have a SeriesInstanceUID each and share all else come as
    one series. Objects that belong to no series are the one with an empty UID.

    Returns:
        The series, sorted by SeriesNumber; none where there is no DICOM file.

    Raises:
        UserError: if the folder is absent or a DICOM file is damaged.
    """
    if not folder.exists():
        raise UserError(f"{folder}: no such file or folder; expected: a folder of DICOM files")
    files = [folder] if folder.is_file() else sorted(file for _, files in walk_files(folder) for file in files)
    found: dict[str, list[Slice]] = defaultdict(list)
    for file in files:
        for one in read_slices(file):
            found[str(one.header.SeriesInstanceUID)].append(one)
    series = [one for uid, slices in _join_single(found).items() for one in _series(uid, slices)]
    return sorted(series, key=lambda one: (one.number is None, one.number or 0, one.uid))


def _join_single(found: dict[str, list[Slice]]) -> dict[str, list[Slice]]:
    """Join CT images whose SeriesInstanceUID some anonymizer renewed for every file.

    They must agree in patient, study, frame of reference, series number, size, spacing and
    orientation, and all CT images with that study and series number must be such single ones.
    """
    scans: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for uid, slices in found.items():
        if any(one.ct and not one.localizer for one in slices):
            header = slices[0].header
            scans[get_text(header, "StudyInstanceUID"), get_number(header, "SeriesNumber")].append(uid)
    joined = dict(found)
    for uids in scans.values():
        slices = [one for uid in uids for one in found[uid]]
        if len(slices) == len(uids) >= _FEWEST_JOINED and _are_of_one_scan(slices):
            for uid in uids:
                del joined[uid]
            joined[min(uids)] = slices
    return joined


def _are_of_one_scan(slices: list[Slice]) -> bool:
    first = slices[0]
    if get_number(first.header, "SeriesNumber") is None or not get_text(first.header, "FrameOfReferenceUID"):
        return False
    identities = {(get_text(one.header, "PatientID"), get_text(one.header, "FrameOfReferenceUID")) for one in slices}
    grids = {(one.rows, one.columns, one.pixel_spacing, one.orientation) for one in slices}
    places = {one.position for one in slices}
    return len(identities) == len(grids) == 1 and None not in places and len(places) == len(slices)


def _series(uid: str, slices: list[Slice]) -> list[Series]:
    ordered = sorted(slices, key=_in_order)
    images = [one for one in ordered if one.ct]
    modality = _most(get_text(one.header, "Modality") for one in images or ordered)
    modality = modality or ("CT" if images else "unknown modality")
    if not images or modality != "CT":
        return [Series(uid, _number(ordered), modality, Part(ordered))]
    rest, notes = set_aside(ordered)
    parts, joined = separate(rest)
    uids = {str(one.header.SeriesInstanceUID) for one in slices}
    if len(uids) > 1:
        words = f"{len(uids)} CT series of one slice each, alike in study, series number and frame of reference"
        notes.append(Note("series_joined", f"{words}, were taken as one scan.", "assumption"))
    return [Series(uid, _number(p.slices), "CT", p, (*notes, *joined)) for p in parts]


def _in_order(one: Slice) -> tuple[object, ...]:
    return get_text(one.header, "SOPInstanceUID"), one.frame, one.position or (), str(one.path)


def _number(slices: list[Slice]) -> int | None:
    found = _most(str(int(value)) for one in slices if (value := get_number(one.header, "SeriesNumber")) is not None)
    return int(found) if found else None


def _most(values: Iterable[str]) -> str:
    """The most frequent value that is not empty; of equals the first in order of the alphabet."""
    counts = Counter(filter(None, values))
    return min(counts, key=lambda value: (-counts[value], value), default="")


def choose_series(folder: Path, found: list[Series], wanted: str | None = None) -> tuple[Series, list[Note]]:
    """Choose the CT scan among the series of a folder.

    Args:
        folder: where they were found, for messages.
        found: what `list_series` returned.
        wanted: SeriesNumber, SeriesInstanceUID or `Series.id`; None takes the only axial CT series.

    Returns:
        The series, and notes on what was left out of it and beside it.

    Raises:
        UserError: if there is no CT, if `wanted` names none or several, or if nobody chose among
            several.
    """
    images = [one for one in found if one.ct]
    if not images:
        kinds = ", ".join(sorted({_kind(one) for one in found})) or "no DICOM images"
        raise UserError(f"{folder}: {kinds}; expected: CT images (CT Image Storage)")
    notes = [Note("objects_left_out", describe_objects(one.slices, ""), "repair") for one in found if not one.uid]
    if wanted is not None:
        chosen = _the_only(folder, images, [one for one in images if _is_named(one, wanted)], wanted)
        return chosen, [*notes, *chosen.notes]
    candidates = [one for one in images if not one.drawback] if len(images) > 1 else images
    chosen = _the_only(folder, images, candidates, None)
    left = _listed([one for one in found if one is not chosen and one.uid])
    words = f"Series {chosen.number} was taken as the only axial CT scan; left out: {left}."
    return chosen, [*([Note("series_chosen", words, "assumption")] if left else []), *notes, *chosen.notes]


def _kind(series: Series) -> str:
    return series.modality if series.uid and series.modality != "CT" else str(series.slices[0].header.SOPClassUID.name)


def _is_named(series: Series, wanted: str) -> bool:
    uids = {str(one.header.SeriesInstanceUID) for one in series.slices}
    return wanted.strip() in {*uids, series.id, str(series.number)}


def _listed(series: list[Series]) -> str:
    more = f"; and {len(series) - _LISTED} more" if len(series) > _LISTED else ""
    return "; ".join(one.describe() for one in series[:_LISTED]) + more


def _the_only(folder: Path, images: list[Series], matches: list[Series], wanted: str | None) -> Series:
    if len(matches) == 1:
        return matches[0]
    shown = matches or images
    asked = "" if wanted is None else f", {'several' if matches else 'none'} of them --series {wanted}"
    count = f"{len({one.uid for one in images})} CT series{_differences(images)}"
    numbers = [one.number for one in shown]
    unique = len(set(numbers)) == len(numbers) and None not in numbers
    how = f"--series {numbers[0]}" if unique else f"--series {shown[0].id}"
    if len(shown) >= _FEWEST_JOINED and all(len(one.slices) == 1 for one in shown):
        expected = f"one SeriesInstanceUID for all slices of a scan, or one slice chosen with e.g. {how}"
        raise UserError(
            f"{folder}: {count}, each of one slice, as some anonymizers leave it{asked}; expected: {expected}"
        )
    raise UserError(f"{folder}: {count}{asked}; expected: one, chosen with e.g. {how}, of {_listed(shown)}")


def _differences(series: list[Series]) -> str:
    keywords = sorted({keyword for one in series for keyword in one.part.keywords})
    parts = sum(bool(one.part.label) for one in series)
    return f" with {parts} parts that are no one volume (different {', '.join(keywords)})" if keywords else ""
