"""Turn every INPUT of `segment` into a list of cases with an output folder each."""

from __future__ import annotations

import logging
import os
import zipfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..data.datalist import select_cases
from ..data.layouts.registry import DATALIST
from ..errors import UserError
from ..files import fit_name
from ..io.dicom.archive import UNREADABLE_ZIP
from ..io.dicom.recognition import DICOM_SUFFIXES, HEAD, recognize, recognize_file
from ..io.images import PICTURE_SUFFIXES
from ..io.output_names import describe_passed_over, walk_files
from ..io.reading import FILE_SUFFIXES, file_suffix, scan_name

logger = logging.getLogger(__name__)

_SEARCHED = tuple(suffix for suffix in FILE_SUFFIXES if suffix != ".img")  # the .hdr stands for the pair
ACCEPTED = f"{', '.join(FILE_SUFFIXES)}, a folder or .zip of DICOM files, a folder of these"

Kind = Literal["file", "dicom", "zip"]


@dataclass(frozen=True)
class Case:
    """One scan to segment.

    Attributes:
        source: the file (NIfTI, NRRD, MetaImage, picture, zip) or the folder or file of DICOM.
        kind: "file" for `read_scan`, "dicom" for `read_dicom`, "zip" for an archive of DICOM.
        name: the input's name without extension.
        folder: name of the case's folder below the output folder, different for every case of a
            run.
    """

    source: Path
    kind: Kind
    name: str
    folder: str


def expand_inputs(paths: Sequence[str | Path], output: str | Path | None = None) -> list[Case]:
    """List the scans that the inputs stand for.

    An input is a scan file, a DICOM file, a .zip of DICOM, or a folder, which is searched with its
    subfolders. A DICOMDIR stands for the folder that it lies in. DICOM files of one study make one
    case; a folder that holds nothing but one study is itself the case. Hidden files, the output
    folder and the results of earlier runs are passed over, and so are pictures among DICOM files.

    A case's folder bears the scan's name. Where names are equal, also but for upper and lower case,
    as many parent folders are put before them as tell them apart, whatever the order of the inputs.
    Names that no file system takes are shortened, see `fit_name`.

    Args:
        paths: the inputs.
        output: the folder of the results, if there is one.

    Returns:
        The cases, in the order of the inputs and sorted within a folder; a scan that is named twice
        comes once.

    Raises:
        UserError: for an input that does not exist or holds no scan, and for an output folder that
            is an input.
    """
    if not paths:
        raise UserError(f"no input; expected: {ACCEPTED}")
    found: dict[Path, Kind] = {}
    for path in paths:
        for source, kind in _expand(Path(path), None if output is None else Path(output)):
            found.setdefault(Path(os.path.abspath(source)), kind)
    names = _unique_names(list(found))
    return [Case(source, kind, _name(source), names[source]) for source, kind in found.items()]


def _expand(path: Path, output: Path | None) -> list[tuple[Path, Kind]]:
    if path.is_dir():
        return _search(path, output)
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder; expected: {ACCEPTED}")
    try:
        content = recognize_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected: a file that you may read") from None
    if content == "directory":
        return _search(path.parent, output)
    if file_suffix(path) and not (path.suffix.lower() == ".img" and content):
        return [(path, "file")]
    if path.suffix.lower() == ".zip":
        if not _holds_dicom(path):
            if _is_encrypted(path):
                raise UserError(f"{path}: an encrypted .zip; expected: one without a password, or the unpacked folder")
            raise UserError(f"{path}: no DICOM file inside, or no .zip; expected: {ACCEPTED}")
        return [(path, "zip")]
    if content:
        return [(path, "dicom")]
    raise UserError(f"{path}: {path.stat().st_size} bytes that are no scan; expected: {ACCEPTED}")


def _search(root: Path, output: Path | None) -> list[tuple[Path, Kind]]:
    """The scans below a folder."""
    if output is not None and output.resolve() == root.resolve():
        raise UserError(f"{root}: is the output folder, too; expected: an output folder of its own")
    if (root / DATALIST).is_file():
        return [(Path(case["image"]), "file") for case in select_cases(root, "all", masks=False)]
    found: list[tuple[Path, Kind]] = []
    of_folders: dict[Path, str] = {}
    count = 0
    for folder, files in walk_files(root, output):
        count += len(files)
        study = _study_of(files)
        if study is not None:
            of_folders[folder] = study
        passed_over = PICTURE_SUFFIXES if study is not None else ()
        scans = [file for file in files if file.name.lower().endswith(_SEARCHED)]
        found += [(file, "file") for file in scans if not file.name.lower().endswith(passed_over)]
        found += [(file, "zip") for file in files if file.suffix.lower() == ".zip" and _holds_dicom(file)]
    studies = _studies(of_folders)
    if len(studies) == 1 and not found:
        return [(root, "dicom")]
    found += [(folder, "dicom") for folder in studies]
    left_out = describe_passed_over(root, _SEARCHED)
    if not found:
        raise UserError(f"{root}: {'; '.join([f'{count} files and no scan', *left_out])}; expected: {ACCEPTED}")
    for line in left_out:
        logger.warning(f"{root}: {line}")
    return sorted(found)


def _may_be_dicom(path: Path) -> bool:
    known = file_suffix(path) not in ("", ".img") or path.suffix.lower() == ".zip"
    if known:
        return False
    try:
        return recognize_file(path) == "object"
    except OSError:
        return False


def _study_of(files: Sequence[Path]) -> str | None:
    """Return the study of a folder's DICOM files: a CT image's, else any object's.

    Returns:
        StudyInstanceUID; "" where all objects belong to no study, None without DICOM.
    """
    found: str | None = None
    for file in files:
        if _may_be_dicom(file):
            study, ct = _study(file)
            if ct:
                return study
            found = found or study
    return found


def _holds_dicom(path: Path) -> bool:
    """Whether a .zip holds a DICOM file."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.is_dir() or entry.flag_bits & 1:
                    continue
                with archive.open(entry) as file:
                    if recognize(file.read(HEAD), entry.filename) == "object":
                        return True
    except UNREADABLE_ZIP:
        return False
    return False


def _is_encrypted(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(entry.flag_bits & 1 for entry in archive.infolist())
    except UNREADABLE_ZIP:
        return False


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
    from ..io.dicom.header import CT_CLASSES, text

    own = str(path.parent)
    try:
        with path.open("rb") as file:
            header = read_header(file, ["SOPClassUID", "StudyInstanceUID"])
        sop_class = str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")
    except UNREADABLE_FILE:
        return own, False
    ct = sop_class in CT_CLASSES
    return text(header, "StudyInstanceUID") or (own if ct or not sop_class else ""), ct


def _name(source: Path) -> str:
    archive = source.suffix.lower() in (".zip", *DICOM_SUFFIXES) and not source.is_dir()
    return source.stem if archive else scan_name(source)


def _unique_names(sources: list[Path]) -> dict[Path, str]:
    """Name that differ also without upper and lower case: twins get their parents put before them.

    Raises:
        UserError: for files of one folder whose names differ in upper and lower case only.
    """
    beside = Counter((source.parent, _name(source).casefold()) for source in sources)
    alone = {source: beside[source.parent, _name(source).casefold()] == 1 for source in sources}
    parts = {source: [*source.parent.parts[1:], _name(source) if alone[source] else source.name] for source in sources}
    depth = dict.fromkeys(sources, 1)
    while True:
        names = {source: "_".join(parts[source][-depth[source] :]) for source in sources}
        times = Counter(name.casefold() for name in names.values())
        twins = [source for source in sources if times[names[source].casefold()] > 1]
        if not twins:
            return {source: fit_name(name) for source, name in names.items()}
        if all(depth[source] >= len(parts[source]) for source in twins):
            listed = " and ".join(map(str, sorted(twins)))
            raise UserError(f"{listed}: would be given one output folder; expected: names that differ, rename one")
        for source in twins:
            depth[source] += 1
