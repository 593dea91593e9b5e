"""DICOM in a ZIP file, as archives and portals hand it out."""

import lzma
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

from ...errors import UserError
from ...files import unfinished_folder
from ..limits import check_limit

UNREADABLE_ZIP = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError, ValueError),
    *(LookupError, OverflowError, MemoryError),
)
"""What zipfile raises for an archive that is damaged, encrypted, or compressed in a way that it
does not know."""


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield the folder to read: `path` itself, or for a .zip a temporary folder with its content.

    The temporary folder bears the archive's name and is gone when the context ends, so whatever
    needs the files (`read_dicom`, `write_dicom_seg`) belongs inside. A `UserError` that leaves the
    context names the archive in place of that folder.

    Raises:
        UserError: if the archive is damaged or encrypted, holds a link or a path that leads out of
            the folder, or unpacks to more than the limits or than the disk has room for.
    """
    if path.suffix.lower() != ".zip":
        yield path
        return
    with unfinished_folder(tempfile.gettempdir()) as temporary:  # which removes those of killed processes, too
        folder = temporary / path.stem
        folder.mkdir()
        _extract(path, folder)
        try:
            yield folder
        except UserError as error:  # its reader knows the archive, not the folder that is gone by then
            raise UserError(str(error).replace(str(folder), str(path))) from error


def _extract(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            _check(path, archive.infolist(), shutil.disk_usage(folder).free)
            for entry in archive.infolist():
                taken = not entry.is_dir() and (folder / entry.filename).exists()  # names may repeat
                archive.extract(entry, tempfile.mkdtemp(dir=folder) if taken else folder)  # no more than it declares
    except UNREADABLE_ZIP as error:
        raise UserError(f"{path}: cannot be unpacked ({error}); expected: a complete .zip of DICOM files") from None


def _check(path: Path, entries: list[zipfile.ZipInfo], free: int) -> None:
    total = sum(entry.file_size for entry in entries)
    check_limit(path, "archive_files", len(entries), "files")
    check_limit(path, "archive_bytes", total, "bytes unpacked")
    check_limit(path, "ratio", -(-total // path.stat().st_size), "times as many bytes unpacked as packed")
    if total > free:
        found = f"{total / 2**30:.1f} GiB unpacked"
        raise UserError(
            f"{path}: {found}; expected: at most the {free / 2**30:.1f} GiB free in {tempfile.gettempdir()}"
        )
    for entry in entries:
        if stat.S_ISLNK(entry.external_attr >> 16) or entry.flag_bits & 1 or _leads_out(entry.filename):
            why = "an encrypted entry" if entry.flag_bits & 1 else "a link or a path that leads out of the archive"
            raise UserError(f"{path}: {entry.filename!r} is {why}; expected: plain files and folders")


def _leads_out(name: str) -> bool:
    kinds = PurePosixPath(name), PureWindowsPath(name)
    return any(kind.is_absolute() or kind.drive or ".." in kind.parts for kind in kinds)
