"""Read NRRD and MetaImage through SimpleITK, and write bytes in their format and grid."""

import math
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own documentation's name
from numpy.typing import NDArray

from ...errors import UserError
from ...files import write_atomic
from ..geometry_checks import is_placeholder
from ..limits import check_size
from ..native import Information, NativeError, check_path, inspect, read
from ..nifti.reading import choose_volume
from ..volume import LPS_TO_RAS, Affine, Note, Scan
from .headers import TextHeader, check_data, find_data, read_text_header

NRRD_SUFFIXES = (".nrrd", ".nhdr")
META_SUFFIXES = (".mha", ".mhd")
ITK_SUFFIXES = NRRD_SUFFIXES + META_SUFFIXES

_NUMBERS = {  # bytes of a number by its type
    **{f"{bits}-bit {sign} integer": bits // 8 for bits in (8, 16, 32, 64) for sign in ("signed", "unsigned")},
    "32-bit float": 4,
    "64-bit float": 8,
}
_VERBATIM = (
    "space",
    "space dimension",
    "space directions",
    "space origin",
    "spacings",
    "axis mins",
    "space units",
    "units",
)


def read_itk(path: Path, volume: int | None = None) -> Scan:
    """Read one volume, values as they are stored; of a four-dimensional image `volume`, from 1.

    Raises:
        UserError: for a file that is damaged or incomplete, holds several values a voxel, or
            several volumes and none is named.
    """
    text, header = _complete(path)
    index, notes = choose_volume(path, header.size, volume)
    values = _values(path, header, index)
    affine, facts = affine_of(header), {"format": text.format}
    known, doubts = judge_voxel_size(len(header.size), affine, text.sized, text.unit)
    if not text.oriented:
        message = "the header holds no orientation; taken for left, posterior, superior (LPS)"
        notes.append(Note("orientation_unknown", message, "assumption"))
    notes += doubts
    return Scan("", path, "itk", values, affine, voxel_size_known=known, facts=facts, notes=notes)


def inspect_itk(path: Path) -> tuple[tuple[int, int, int], Affine]:
    """Return size (X, Y, Z) and affine (RAS, mm) of one complete volume; errors as `read_itk`."""
    _, header = _complete(path)
    choose_volume(path, header.size, None)
    x, y, z = (*header.size, 1)[:3]
    return (x, y, z), affine_of(header)


def _complete(path: Path) -> tuple[TextHeader, Information]:
    """The header as text and as ITK reads it, of a file that holds all its voxels."""
    text = read_text_header(path)
    if text.rescaled:
        found = "ElementToIntensityFunction changes the stored values, which ITK and its viewers leave as they are"
        raise UserError(f"{path}: {found}; expected: a slope of 1 and an offset of 0")
    data = find_data(path, text)
    header = _information(path)
    check_size(path, header.size)
    check_data(data, path, text, math.prod(header.size) * _NUMBERS[header.type])
    return text, header


def _information(path: Path) -> Information:
    try:
        found = inspect(path, _reader(path))
    except NativeError as error:
        raise UserError(f"{path}: cannot be read ({error}); expected: NRRD or MetaImage") from None
    if found.type not in _NUMBERS or found.components != 1:
        values = f"{found.components} values a voxel"
        raise UserError(f"{path}: {values} ({found.type}), as colour has; expected: one real number a voxel")
    return found


def _reader(path: Path) -> str:
    return "NrrdImageIO" if path.suffix.lower() in NRRD_SUFFIXES else "MetaImageIO"


def _values(path: Path, header: Information, index: int) -> NDArray[np.generic]:
    try:
        array = read(path, _reader(path), math.prod(header.size))
    except NativeError as error:
        raise UserError(f"{path}: cannot be read ({error}); expected: a complete file") from None
    size = (*header.size, 1)[:3]
    return array.reshape(-1, *size[::-1])[index].transpose(2, 1, 0)


def affine_of(grid: Information) -> Affine:
    """Return ITK's origin, spacing and direction (LPS) as an affine to RAS."""
    dimension = len(grid.size)
    shared = min(dimension, 3)
    direction, affine = np.eye(3), np.eye(4)
    stored = np.reshape(grid.direction, (dimension, dimension))
    direction[:shared, :shared] = stored[:shared, :shared] * np.array(grid.spacing)[:shared]
    affine[:3, :3] = LPS_TO_RAS[:3, :3] @ direction
    affine[:shared, 3] = (LPS_TO_RAS[:shared, :shared] @ grid.origin[:shared]) + 0.0
    return affine


def judge_voxel_size(dimension: int, affine: Affine, sized: bool = True, unit: str = "") -> tuple[bool, list[Note]]:
    """Return whether an affine (4, 4) holds millimetres, and a warning where it does not.

    `dimension` counts the stored axes; `sized` says whether a voxel size is stated at all, `unit`
    in which unit if it is not mm.
    """
    if dimension < 3:
        doubt = "a single two-dimensional slice has no thickness"
    elif not sized:
        doubt = "the header holds no voxel size"
    elif unit:
        doubt = f"the header gives lengths in {unit[:20]}, not in mm"
    elif is_placeholder(affine):
        doubt = "voxels of exactly 1 x 1 x 1 without origin are a writer's default"
    else:
        return True, []
    message = f"{doubt}: the voxel size is not known, nothing is measured in mm or ml"
    return False, [Note("voxel_size_unknown", message, "warning")]


def itk_size(path: Path) -> tuple[int, ...]:
    """Number of voxels along each stored axis."""
    read_text_header(path)  # whose text is checked before ITK sees it
    return _information(path).size


def write_itk_bytes(values: NDArray[np.uint8], scan: Path, path: Path) -> Path:
    """Write a compressed file of bytes with exactly the scan's origin, spacing and direction.

    The values (X, Y, Z) are in the scan's stored order; `path` ends in .nrrd or .mha.
    """
    check_path(path)
    grid = _information(scan)
    dimension = len(grid.size)
    shared = min(dimension, 3)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.reshape(values.shape[:shared]).T))
    stored = np.reshape(grid.direction, (dimension, dimension))[:shared, :shared]
    image.SetOrigin(grid.origin[:shared])
    image.SetSpacing(grid.spacing[:shared])
    image.SetDirection(stored.ravel().tolist())

    def write(temporary: Path) -> None:
        sitk.WriteImage(image, str(temporary), useCompression=True)
        if path.suffix.lower() == ".nrrd" and dimension == shared:
            _repeat_geometry(temporary, read_text_header(scan))

    return write_atomic(path, write)


def _repeat_geometry(path: Path, source: TextHeader) -> None:
    """Give a NRRD file the source's geometry lines, which ITK's way there and back may round."""
    head, body = path.read_bytes().split(b"\n\n", 1)
    lines = [line for line in head.decode("latin-1").splitlines() if line.split(":")[0] not in _VERBATIM]
    lines += [f"{key}: {source.fields[key]}" for key in _VERBATIM if key in source.fields]
    path.write_bytes("\n".join(lines).encode("latin-1") + b"\n\n" + body)
