"""Finding scans: what a path stands for, for `segment` and for `run inference`."""

from __future__ import annotations

import logging
import os
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from ..data.layouts.case import DATALIST
from ..errors import UserError
from ..io.dicom.archive import UNREADABLE_ZIP
from ..io.dicom.recognition import HEAD, recognize, recognize_file
from ..io.images import PICTURE_SUFFIXES
from ..io.masks import mask_suffix
from ..io.output_names import DOWNLOADS, find_passed_over, walk_files
from ..io.reading import FILE_SUFFIXES, file_suffix, scan_name
from ..messages import some

logger = logging.getLogger(__name__)

EXPECTED = f"{', '.join(FILE_SUFFIXES)}, a folder or .zip of DICOM files, a folder of these"
_SEARCHED = tuple(suffix for suffix in FILE_SUFFIXES if suffix != ".img")  # the .hdr stands for the pair

_NO_SCAN = "files that are no scan"
_SPLIT = "images of a study that goes on in another folder"
Kind = Literal["file", "dicom", "zip"]
"""What reads a scan: `read_scan`, `read_dicom`, or `read_dicom` after `unpacked`."""


def find_scans(path: str) -> list[dict[str, str]]:
    """List the scans that a path stands for, for MONAI's data sets.

    Raises:
        UserError: see `discover`; if two scans would be given one mask.
    """
    scans = [source for source, _ in discover(Path(path))]
    masks: dict[tuple[Path, str, str], list[Path]] = defaultdict(list)
    for scan in scans:
        masks[scan.parent, scan_name(scan), mask_suffix(scan)].append(scan)
    twins = [" and ".join(map(str, group)) for group in masks.values() if len(group) > 1]
    if twins:
        raise UserError(f"{'; '.join(twins)}: would be given the same mask; expected: names that differ before the dot")
    return [{"image": str(scan)} for scan in scans]


def scans_root(path: str) -> str:
    """Return the folder whose subfolders the results repeat: `path`, or the folder of a scan."""
    root = Path(path)
    return str(root.parent if root.is_file() or _search(root)[0] == [(root, "dicom")] else root)


def discover(path: Path, output: Path | None = None, passed_over: list[str] | None = None) -> list[tuple[Path, Kind]]:
    """List the scans that a path stands for.

    A path is a scan file, a DICOM file, a .zip of DICOM, or a folder, which is searched with its
    subfolders. A DICOMDIR stands for the folder that it lies in; datalist.json for its images.
    DICOM files of one study make one case; a folder that holds nothing but one study is itself the
    case. Hidden files, the output folder and the results of earlier runs are passed over, and so
    are pictures among DICOM files and folders that cannot be read.

    Args:
        path: the file or folder.
        output: the folder of the results.
        passed_over: gets a line for each kind of file that was passed over; each is logged, too.

    Returns:
        The scans, sorted, each with what reads it.

    Raises:
        UserError: for a path that does not exist, holds no scan, or is the output folder.
    """
    passed_over = [] if passed_over is None else passed_over
    if path.is_dir():
        return _search_folder(path, output, passed_over)
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder; expected: {EXPECTED}")
    try:
        content = recognize_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected: a file that you may read") from None
    if content == "directory":
        return _search_folder(path.parent, output, passed_over)
    if file_suffix(path) and not (path.suffix.lower() == ".img" and content):
        return [(path, "file")]
    if path.suffix.lower() == ".zip":
        return [(path, "zip")]  # a damaged one is refused by its reader
    if content:
        return [(path, "dicom")]
    raise UserError(f"{path}: {path.stat().st_size} bytes that are no scan; expected: {EXPECTED}")


def scans_below(folder: Path) -> list[Path]:
    """List the scans below a folder but pictures and what was downloaded there, sorted."""
    found = _search(folder, folder / DOWNLOADS)[0]
    return [source for source, _ in found if not source.name.lower().endswith(PICTURE_SUFFIXES)]


def _search_folder(root: Path, output: Path | None, passed_over: list[str]) -> list[tuple[Path, Kind]]:
    if output is not None and output.resolve() == root.resolve():
        raise UserError(f"{root}: is the output folder, too; expected: an output folder of its own")
    if (root / DATALIST).is_file():
        from ..data.datalist import select_cases  # MONAI, pandas

        return [(Path(case["image"]), "file") for case in select_cases(root, "all", masks=False)]
    found, count, others = _search(root, output)
    if not found:  # the count names them
        others.pop(_NO_SCAN, None)
    split = [str(file.relative_to(root)) for file in others.pop(_SPLIT, [])]
    left_out = _describe(root, find_passed_over(root, _SEARCHED) | others)
    if split:
        left_out.append(f"{_SPLIT} ({some(split)}), whose scan may lack slices; expected: a folder for each study")
    if not found:
        raise UserError(f"{root}: {'; '.join([f'{count} files and no scan', *left_out])}; expected: {EXPECTED}")
    for line in left_out:
        logger.warning(f"{root}: {line}")
        passed_over.append(f"{root}: {line}")
    return found


def _describe(root: Path, others: dict[str, list[Path]]) -> list[str]:
    names = {what: [str(file.relative_to(root)) for file in files] for what, files in others.items() if files}
    return [f"{len(files)} {what} were passed over ({some(files)})" for what, files in names.items()]


def _search(root: Path, output: Path | None = None) -> tuple[list[tuple[Path, Kind]], int, dict[str, list[Path]]]:
    """Find the scans below a folder; count the files, and name those that are no scans."""
    found: list[tuple[Path, Kind]] = []
    others: dict[str, list[Path]] = defaultdict(list)
    of_folders: dict[Path, str] = {}
    last_ones: dict[Path, str] = {}
    count = 0
    for folder, files in walk_files(root, output, unreadable=[]):  # `find_passed_over` finds them
        count += len(files)
        first, study = _find_image(files)
        if study is not None:
            of_folders[folder] = study
        if first is not None:  # exports onto a medium fill one numbered folder after the other
            last, other = _find_image(reversed(files))
            if last is not None and other is not None and other != study:
                last_ones[last] = other
        beside = PICTURE_SUFFIXES if study is not None else ()
        for file in files:
            name = file.name.lower()
            if file.suffix.lower() == ".zip":
                what = _look_into(file)
                if what == "DICOM":
                    found.append((file, "zip"))
                else:
                    others[what].append(file)
            elif name.endswith(_SEARCHED) and not name.endswith(beside):
                found.append((file, "file"))
            elif name.endswith(_SEARCHED):
                others["pictures beside DICOM files"].append(file)
            elif study is None and not name.endswith(".img"):
                others[_NO_SCAN].append(file)
    studies = _studies(of_folders)
    if len(studies) == 1 and not found:
        return [(root, "dicom")], count, others
    others[_SPLIT] = [file for file, study in last_ones.items() if study in of_folders.values()]
    return sorted([*found, *((folder, "dicom") for folder in studies)]), count, others


def _may_be_dicom(path: Path) -> bool:
    if file_suffix(path) not in ("", ".img") or path.suffix.lower() == ".zip":
        return False
    try:
        return recognize_file(path) == "object"
    except OSError:
        return False


def _find_image(files: Iterable[Path]) -> tuple[Path | None, str | None]:
    """Find the first CT image and its study; without one no file, and the study of any object.

    Returns:
        The file, and its StudyInstanceUID; "" where all objects belong to no study, None without
        DICOM.
    """
    found: str | None = None
    for file in filter(_may_be_dicom, files):
        study, ct = _study(file)
        if ct:
            return file, study
        found = found or study
    return None, found


def _look_into(path: Path) -> str:
    """Say what kind of .zip it is: "DICOM" for one that holds a DICOM file."""
    encrypted = False
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.flag_bits & 1:
                    encrypted = True
                elif not entry.is_dir():
                    with archive.open(entry) as file:
                        if recognize(file.read(HEAD), entry.filename) == "object":
                            return "DICOM"
    except UNREADABLE_ZIP:
        return "encrypted .zip" if encrypted else "damaged .zip"
    return "encrypted .zip" if encrypted else ".zip without DICOM"


def _studies(of_folders: dict[Path, str]) -> list[Path]:
    """One folder for each DICOM study: the deepest that holds all of it.

    Studies whose folders lie in each other cannot be told apart by a folder; they stay one case,
    and the reader lists their series. A folder of objects that belong to no study, such as hanging
    protocols, is no case beside others.
    """
    studies: dict[str, list[Path]] = defaultdict(list)
    for folder, study in of_folders.items():
        studies[study or str(folder)].append(folder)
    named = {study for study in of_folders.values() if study}
    tops = {Path(os.path.commonpath(studies[study])) for study in named or studies}
    return sorted(top for top in tops if not any(parent in tops for parent in top.parents))


def _study(path: Path) -> tuple[str, bool]:
    """StudyInstanceUID of a DICOM file, and whether it is a CT image.

    The study is "" for an object that belongs to none; what cannot be read has one of its own, so
    that the reader gets to see it and refuses it by name.
    """
    from ..io.dicom.files import UNREADABLE_FILE, read_header  # pydicom
    from ..io.dicom.header import CT_CLASSES, get_text

    own = str(path.parent)
    try:
        with path.open("rb") as file:
            header = read_header(file, ["SOPClassUID", "StudyInstanceUID"])
        sop_class = str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")
    except UNREADABLE_FILE:
        return own, False
    ct = sop_class in CT_CLASSES
    return get_text(header, "StudyInstanceUID") or (own if ct or not sop_class else ""), ct
