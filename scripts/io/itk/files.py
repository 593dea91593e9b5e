"""Read NRRD and MetaImage through SimpleITK, and write bytes in their format and grid."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its own documentation's name
from numpy.typing import NDArray

from ...errors import UserError
from ...files import write_atomic
from ..geometry_checks import is_placeholder
from ..nifti.reading import choose_volume
from ..volume import LPS_TO_RAS, Affine, Note, Scan
from .headers import TextHeader, check_data, find_data, read_text_header

NRRD_SUFFIXES = (".nrrd", ".nhdr")
META_SUFFIXES = (".mha", ".mhd")
ITK_SUFFIXES = NRRD_SUFFIXES + META_SUFFIXES

_NUMBERS = {  # bytes of a number by its type
    **dict.fromkeys((sitk.sitkUInt8, sitk.sitkInt8), 1),
    **dict.fromkeys((sitk.sitkUInt16, sitk.sitkInt16), 2),
    **dict.fromkeys((sitk.sitkUInt32, sitk.sitkInt32, sitk.sitkFloat32), 4),
    **dict.fromkeys((sitk.sitkUInt64, sitk.sitkInt64, sitk.sitkFloat64), 8),
}
_VERBATIM = ("space", "space dimension", "space directions", "space origin", "spacings", "axis mins")


def read_itk(path: Path, volume: int | None = None) -> Scan:
    """Read one volume, values as they are stored; of a four-dimensional image `volume`, from 1.

    Raises:
        UserError: for a file that is damaged or incomplete, holds several values a voxel, or
            several volumes and none is named.
    """
    text, header = _complete(path)
    index, notes = choose_volume(path, header.GetSize(), volume)
    values = _values(path, header, index)
    affine, facts = affine_of(header), {"format": text.format}
    known, doubts = judge_voxel_size(header.GetDimension(), affine, text.sized)
    if not text.oriented:
        message = "the header holds no orientation; taken for left, posterior, superior (LPS)"
        notes.append(Note("orientation_unknown", message, "assumption"))
    notes += doubts
    return Scan("", path, "itk", values, affine, voxel_size_known=known, facts=facts, notes=notes)


def inspect_itk(path: Path) -> tuple[tuple[int, int, int], Affine]:
    """Return size (X, Y, Z) and affine (RAS, mm) of one complete volume; errors as `read_itk`."""
    _, header = _complete(path)
    choose_volume(path, header.GetSize(), None)
    x, y, z = (*header.GetSize(), 1)[:3]
    return (x, y, z), affine_of(header)


def _complete(path: Path) -> tuple[TextHeader, sitk.ImageFileReader]:
    """The header as text and as ITK reads it, of a file that holds all its voxels."""
    text = read_text_header(path)
    data = find_data(path, text)
    header = _information(path)
    check_data(data, path, text, int(np.prod(header.GetSize())) * _NUMBERS[header.GetPixelID()])
    return text, header


def _information(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise UserError(f"{path}: cannot be read ({_reason(error)}); expected: NRRD or MetaImage") from None
    if reader.GetPixelID() not in _NUMBERS or reader.GetNumberOfComponents() != 1:
        found = f"{reader.GetNumberOfComponents()} values a voxel"
        kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
        raise UserError(f"{path}: {found} ({kind}), as colour has; expected: one real number a voxel")
    return reader


def _values(path: Path, reader: sitk.ImageFileReader, index: int) -> NDArray[np.generic]:
    try:
        array = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise UserError(f"{path}: cannot be read ({_reason(error)}); expected: a complete file") from None
    size = (*reader.GetSize(), 1)[:3]
    return array.reshape(-1, *size[::-1])[index].transpose(2, 1, 0)


def affine_of(reader: sitk.ImageFileReader | sitk.Image) -> Affine:
    """Return ITK's origin, spacing and direction (LPS) as an affine to RAS."""
    dimension = reader.GetDimension()
    shared = min(dimension, 3)
    direction, affine = np.eye(3), np.eye(4)
    stored = np.reshape(reader.GetDirection(), (dimension, dimension))
    direction[:shared, :shared] = stored[:shared, :shared] * np.array(reader.GetSpacing())[:shared]
    affine[:3, :3] = LPS_TO_RAS[:3, :3] @ direction
    affine[:shared, 3] = (LPS_TO_RAS[:shared, :shared] @ reader.GetOrigin()[:shared]) + 0.0
    return affine


def judge_voxel_size(dimension: int, affine: Affine, sized: bool = True) -> tuple[bool, list[Note]]:
    """Return whether an affine (4, 4) holds millimetres, and a warning where it does not.

    `dimension` counts the stored axes; `sized` says whether a voxel size is stated at all.
    """
    if dimension < 3:
        doubt = "a single two-dimensional slice has no thickness"
    elif not sized:
        doubt = "the header holds no voxel size"
    elif is_placeholder(affine):
        doubt = "voxels of exactly 1 x 1 x 1 without origin are a writer's default"
    else:
        return True, []
    message = f"{doubt}: the voxel size is not known, nothing is measured in mm or ml"
    return False, [Note("voxel_size_unknown", message, "warning")]


def itk_size(path: Path) -> tuple[int, ...]:
    """Number of voxels along each stored axis."""
    return tuple(_information(path).GetSize())


def _reason(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1].strip()


def write_itk_bytes(values: NDArray[np.uint8], scan: Path, path: Path) -> Path:
    """Write a compressed file of bytes with exactly the scan's origin, spacing and direction.

    The values (X, Y, Z) are in the scan's stored order; `path` ends in .nrrd or .mha.
    """
    reader = _information(scan)
    shared = min(reader.GetDimension(), 3)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.reshape(values.shape[:shared]).T))
    stored = np.reshape(reader.GetDirection(), (reader.GetDimension(),) * 2)[:shared, :shared]
    image.SetOrigin(reader.GetOrigin()[:shared])
    image.SetSpacing(reader.GetSpacing()[:shared])
    image.SetDirection(stored.ravel().tolist())

    def write(temporary: Path) -> None:
        sitk.WriteImage(image, str(temporary), useCompression=True)
        if path.suffix.lower() == ".nrrd" and reader.GetDimension() == shared:
            _repeat_geometry(temporary, read_text_header(scan))

    return write_atomic(path, write)


def _repeat_geometry(path: Path, source: TextHeader) -> None:
    """Give a NRRD file the source's geometry lines, which ITK's way there and back may round."""
    head, body = path.read_bytes().split(b"\n\n", 1)
    lines = [line for line in head.decode("latin-1").splitlines() if line.split(":")[0] not in _VERBATIM]
    lines += [f"{key}: {source.fields[key]}" for key in _VERBATIM if key in source.fields]
    path.write_bytes("\n".join(lines).encode("latin-1") + b"\n\n" + body)
