"""What `segment` was asked to segment: every scan, each with an output folder of its own."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..files import digest, fit_name
from ..io.output_names import MANIFEST, walk_files
from ..io.reading import scan_files, scan_name
from ..messages import counted, some
from .discovery import EXPECTED, Kind, discover, scans_below


@dataclass(frozen=True)
class ScanInput:
    """One scan to segment.

    Attributes:
        source: the file (NIfTI, NRRD, MetaImage, picture, zip) or the folder or file of DICOM.
        kind: what reads it, see `discover`.
        name: the input's name without extension.
        folder: name of the case's folder below the output folder, different for every case of a
            run.
    """

    source: Path
    kind: Kind
    name: str
    folder: str


def input_files(case: ScanInput) -> list[Path]:
    """List the files that a case is read from; UserError if one that belongs to it is missing."""
    if case.kind == "file":
        return scan_files(case.source)
    if case.source.is_dir():
        return [file for _, found in walk_files(case.source) for file in found]
    return [case.source]


def file_stamps(files: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Return name, bytes and time of change (ns) of each file: by them an input is recognised."""
    return [(path.name, status.st_size, status.st_mtime_ns) for path in files for status in [path.stat()]]


def input_stamp(case: ScanInput) -> str:
    """Return a hash of the `file_stamps` of a case, which the manifest keeps."""
    return digest(file_stamps(input_files(case)))


def expand_inputs(
    paths: Sequence[str | Path], output: str | Path | None = None, passed_over: list[str] | None = None
) -> list[ScanInput]:
    """List the scans that the inputs stand for, see `discover`.

    A case's folder bears the scan's name. Where names are equal, also but for upper and lower case,
    as many parent folders are put before them as tell them apart, whatever the order of the inputs.
    Names that no file system takes are shortened, see `fit_name`.

    Args:
        paths: the inputs.
        output: the folder of the results, if there is one.
        passed_over: gets a line for each kind of file that was passed over.

    Returns:
        The cases, in the order of the inputs and sorted within a folder; a scan that is named twice
        comes once.

    Raises:
        UserError: see `discover`; for an empty text, which would be the current folder; for scans
            whose folders would have one name.
    """
    if not paths:
        raise UserError(f"no input; expected: {EXPECTED}")
    if "" in paths:
        raise UserError("an INPUT is empty; expected: a path or an address")
    found: dict[Path, Kind] = {}
    for path in paths:
        for source, kind in discover(Path(path), None if output is None else Path(output), passed_over):
            found.setdefault(Path(os.path.abspath(source)), kind)
    names = _unique_names(list(found))
    return [ScanInput(source, kind, scan_name(source), names[source]) for source, kind in found.items()]


def check_output(output: Path, cases: Iterable[ScanInput]) -> None:
    """Refuse an output folder that is a scan, or holds some, but for inputs: it may be an input.

    A folder that holds a manifest is one of an earlier call. What lies deeper is not looked at: a
    folder of results may hold folders of all kinds.

    Raises:
        UserError: names some of the scans.
    """
    if not output.is_dir() or (output / MANIFEST).exists():
        return
    inputs, folder = {case.source for case in cases}, Path(os.path.abspath(output))
    near = [one for one in scans_below(folder) if folder in (one, one.parent)]
    others = [str(one) for one in near if inputs.isdisjoint((one, *one.parents))]
    if others:
        found = f"OUTPUT holds {counted(len(others), 'scan')} beside the inputs ({some(others)})"
        raise UserError(f"{output}: {found}; expected: INPUT... OUTPUT, the last a folder for the results alone")


def check_choice(cases: Iterable[ScanInput], series: str | None, volume: int | None) -> None:
    """Refuse a series or a volume that no case can have.

    Raises:
        UserError: for a series without DICOM, a volume with nothing but DICOM.
    """
    kinds = {case.kind == "file" for case in cases}
    if series is not None and kinds == {True}:
        raise UserError(f"series is {series!r}, and no input is DICOM; expected: it with DICOM only")
    if volume is not None and kinds == {False}:
        raise UserError(f"volume is {volume}, and every input is DICOM; expected: it with other formats only")


def _unique_names(sources: list[Path]) -> dict[Path, str]:
    """Name scans apart, also but for upper and lower case: twins get their parents before them."""
    beside = Counter((source.parent, scan_name(source).casefold()) for source in sources)
    own = {
        source: scan_name(source) if beside[source.parent, scan_name(source).casefold()] == 1 else source.name
        for source in sources
    }
    parts = {source: [*source.parent.parts[1:], own[source]] for source in sources}
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
