"""Read one scan from a file of any format but DICOM, with the facts of its header."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
from numpy.typing import NDArray

from ..errors import UserError
from .dicom.recognition import DICOM_SUFFIXES, recognize_file
from .geometry_checks import check_directions, check_geometry
from .grids import Grid
from .images import PICTURE_SUFFIXES, is_picture, picture_size, read_codes, read_picture
from .itk.files import ITK_SUFFIXES, inspect_itk, read_itk
from .itk.headers import find_data, read_text_header
from .nifti.reading import NIFTI_SUFFIXES, inspect_nifti, partner, read_nifti
from .volume import Scan

VOLUME_SUFFIXES = NIFTI_SUFFIXES + ITK_SUFFIXES
FILE_SUFFIXES = VOLUME_SUFFIXES + PICTURE_SUFFIXES
"""Names of files that `read_scan` reads, longest first where one ends as another."""


def read_scan(path: Path, volume: int | None = None) -> Scan:
    """Read and check one scan.

    Args:
        path: NIfTI (.nii, .nii.gz, a pair .hdr/.img), NRRD, MetaImage, or a picture (PNG, JPG,
            BMP).
        volume: which volume of a file that holds several, from 1.

    Returns:
        Values as they are stored, memory-mapped where the file is plain NIfTI, with geometry and
        findings.

    Raises:
        UserError: for a file that is missing, empty, damaged, of another kind, or whose geometry
            leaves nothing to segment; the line names the file, what was found and what is expected.
    """
    scan = _read(path, volume)
    scan.name = scan_name(path)
    return checked(scan)


def checked(scan: Scan) -> Scan:
    """Return a scan with findings of `check_geometry` and with facts for the report."""
    scan.notes += check_geometry(scan.path, scan.values.shape, scan.affine, scan.voxel_size_known, scan.picture)
    scan.facts["stored_type"] = str(scan.values.dtype)
    scan.facts["stored_orientation"] = "".join(nib.aff2axcodes(scan.affine))
    return scan


def read_label(path: Path) -> NDArray[Any]:
    """Read a label's values, (height, width) or (X, Y, Z); UserError if it cannot be read."""
    with _in_one_line(path):
        return read_codes(path) if is_picture(path) else _read(path, None).real()


def read_grid(path: Path, decode: bool = True) -> Grid:
    """Read the grid that `read_scan` gives, and make sure that the file is complete.

    Of a volume in gzip the length that gzip wrote behind the data is compared; the data themselves
    are only read when that disagrees. With `decode` a picture is decoded, too, and refused in
    colour.

    Raises:
        UserError: as `read_scan` does, but for slices too small for a network.
    """
    with _in_one_line(path):
        suffix = _checked_suffix(path)
        if is_picture(path):
            return Grid(str(path), read_codes(path).shape[::-1] if decode else picture_size(path), None)
        if suffix in NIFTI_SUFFIXES:
            found = inspect_nifti(path)
            shape, affine = found.shape, found.affine
        else:
            shape, affine = inspect_itk(path)
        check_directions(path, affine)
        return Grid(str(path), shape, affine)


@contextmanager
def _in_one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except (UserError, OSError, EOFError, ValueError, SyntaxError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"{path}: cannot be read, {reason.removeprefix(f'{path}: ')}") from error


def _read(path: Path, volume: int | None) -> Scan:
    suffix = _checked_suffix(path)
    if suffix in NIFTI_SUFFIXES:
        return read_nifti(path, volume)
    if suffix in ITK_SUFFIXES:
        return read_itk(path, volume)
    if volume not in (None, 1):
        raise UserError(f"{path}: --volume {volume} of a picture; expected: none, it holds one slice")
    return read_picture(path)


def _checked_suffix(path: Path) -> str:
    suffix = file_suffix(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {found}; expected: a file, {', '.join(FILE_SUFFIXES)}")
    if not suffix:
        found = "a DICOM file" if recognize_file(path) else "ends in none of the names of scans"
        raise UserError(f"{path}: {found}; expected: {', '.join(FILE_SUFFIXES)}")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: an empty file, 0 bytes; expected: a complete scan, copy it again")
    return suffix


def scan_files(path: Path) -> list[Path]:
    """Return the files that hold a scan, header and voxels; UserError if the second is missing."""
    suffix = path.suffix.lower()
    if suffix in (".hdr", ".img"):
        return [partner(path, ".hdr"), partner(path, ".img")]
    if suffix in ITK_SUFFIXES:
        return [path, *(file for file in find_data(path, read_text_header(path)) if file != path)]
    return [path]


def file_suffix(path: Path) -> str:
    """The ending that says how a file is stored, in lower case; empty for another file.

    >>> file_suffix(Path("a.b.NII.gz")), file_suffix(Path("notes.txt"))
    ('.nii.gz', '')
    """
    name = path.name.lower()
    return next((suffix for suffix in FILE_SUFFIXES if name.endswith(suffix)), "")


def scan_name(path: Path) -> str:
    """A file's name without the ending that says how it is stored.

    >>> [scan_name(Path(name)) for name in ("in/1.2.840.nii.gz", "slice.v2.PNG", "in/P001")]
    ['1.2.840', 'slice.v2', 'P001']
    """
    archive = path.suffix.lower() in (".zip", *DICOM_SUFFIXES) and not path.is_dir()
    suffix = path.suffix if archive else file_suffix(path)
    return path.name[: len(path.name) - len(suffix)] or path.name
