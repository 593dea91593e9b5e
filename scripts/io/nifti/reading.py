"""NIfTI: reading a scan as it is stored."""

import logging
import math
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from ...errors import UserError
from ..geometry_checks import Affine
from ..limits import check_size
from ..payload import GZIP_ERRORS, damaged, is_gzipped, open_payload, read_array
from ..volume import Note, Scan
from .geometry import read_geometry
from .offset import locate_voxels

NIFTI_SUFFIXES = (".nii.gz", ".nii", ".hdr", ".img")

_INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
_NUMBERS = (*_INTEGERS, "float32", "float64")

_HEADERS = {
    True: (nib.nifti1.Nifti1PairHeader, nib.nifti2.Nifti2PairHeader),
    False: (nib.Nifti1Header, nib.Nifti2Header),
}

_UNHEARD = logging.Logger(__name__, logging.CRITICAL + 1)  # a repair that matters becomes a note


class Stored(NamedTuple):
    """A NIfTI header and what nibabel's repairs would hide."""

    header: nib.Nifti1Header  # NIfTI-1 or -2, checked and repaired by nibabel
    pixdim: tuple[float, float, float]  # the three voxel sizes as stored
    offset: float  # vox_offset as stored
    data: Path  # the file with the voxels, for a pair the .img


class Inspected(NamedTuple):
    """What a NIfTI file says of one of its volumes; the voxels themselves have not been read."""

    stored: Stored
    shape: tuple[int, int, int]  # (X, Y, Z) of the volume
    start: int  # byte of the unpacked file at which the volume starts
    end: int  # bytes that the unpacked file must at least have
    affine: Affine  # voxel index to mm, RAS, (4, 4)
    voxel_size_known: bool  # whether the affine holds real millimetres
    notes: list[Note]


def read_nifti(path: Path, volume: int | None = None) -> Scan:
    """Read one volume, values as they are stored.

    The path is .nii, .nii.gz or either file of a pair .hdr/.img; gzip is recognised by content.
    `volume` counts the volumes of a series from 1.

    Raises:
        UserError: for a file that is damaged, holds several volumes and none is named, or holds no
            plain numbers.
    """
    found = inspect_nifti(path, volume)
    header = found.stored.header
    slope, intercept = _scaling(path, header)
    return Scan(
        name="",
        path=path,
        kind="nifti",
        values=_values(found),
        affine=found.affine,
        slope=slope,
        intercept=intercept,
        voxel_size_known=found.voxel_size_known,
        facts={"format": "NIfTI-2" if isinstance(header, nib.Nifti2Header) else "NIfTI-1"},
        notes=[*found.notes, *_check_name(path)],
    )


def inspect_nifti(path: Path, volume: int | None = None) -> Inspected:
    """Read the header of a file, resolve its contradictions, and check the file's length.

    Raises:
        UserError: as `read_nifti` does, but for damage within the voxels of a gzip stream of full
            length.
    """
    stored = read_header(path)
    sizes = tuple(map(int, stored.header.get_data_shape()))  # of NIfTI-2 64 bits, whose product may overflow
    index, notes = choose_volume(path, sizes, volume)
    check_size(path, sizes)
    shape: tuple[int, int, int] = (*sizes, 1)[:3]  # type: ignore[assignment]
    affine, known, findings = read_geometry(path, stored.header, stored.pixdim, shape)
    bytes_each = stored.header.get_data_dtype().itemsize
    payload = math.prod(sizes) * bytes_each
    offset, moved = locate_voxels(stored.data, stored.header, stored.offset, payload)
    start = offset + index * math.prod(shape) * bytes_each
    return Inspected(stored, shape, start, offset + payload, affine, known, [*notes, *findings, *moved])


def read_header(path: Path) -> Stored:
    """Read and check the header; UserError for a broken one, a missing partner, and no NIfTI."""
    pair = path.suffix.lower() in (".hdr", ".img")
    first, data = (partner(path, ".hdr"), partner(path, ".img")) if pair else (path, path)
    try:
        with open_payload(first) as stream:
            start = stream.read(nib.Nifti2Header.sizeof_hdr)
        kind = next((kind for kind in _HEADERS[pair] if kind.may_contain_header(start)), None)
        if kind is None:
            raise UserError(f"{first}: {len(start)} bytes read and no NIfTI header; expected: NIfTI-1 or -2")
        header = kind(start[: kind.sizeof_hdr], check=False)
        pixdim, offset = tuple(float(size) for size in header["pixdim"][1:4]), float(header["vox_offset"])
        _check_type(first, int(header["datatype"]))
        header["vox_offset"] = 0  # judged by the file's size, see `locate_voxels`
        header.check_fix(logger=_UNHEARD)
    except GZIP_ERRORS as error:
        raise damaged(first, 0, error) from None
    except (HeaderDataError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{first}: broken NIfTI header ({one_line(error)}); expected: NIfTI-1 or -2") from None
    return Stored(header, pixdim, offset, data)  # type: ignore[arg-type]


def one_line(error: BaseException) -> str:
    """An error's message without line breaks; its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def choose_volume(path: Path, stored: tuple[int, ...], volume: int | None) -> tuple[int, list[Note]]:
    """Choose one volume of a file: its index along the flattened axes after the third, and notes.

    Raises:
        UserError: if the file holds no volume, several and none is named, or not the one named.
    """
    size = " x ".join(map(str, stored))
    if len(stored) < 2 or min(stored) < 1:
        raise UserError(f"{path}: {size or 'no'} voxels; expected: one slice or one volume")
    count = math.prod(stored[3:])
    if volume is None and count > 1:
        raise UserError(
            f"{path}: {count} volumes ({size}); expected: one, of `segment` chosen with --volume N (1 to {count})"
        )
    if volume is not None and not 1 <= volume <= count:
        raise UserError(f"{path}: --volume {volume} of {count} ({size}); expected: 1 to {count}")
    if count > 1:
        text = f"volume {volume} of {count} was taken as asked"
        return (volume or 1) - 1, [Note("volume_chosen", text, "assumption")]
    if len(stored) > 3:
        return 0, [Note("squeezed", f"stored as {size}; the axes of length 1 were dropped", "repair")]
    return 0, []


def partner(path: Path, suffix: str) -> Path:
    """Return the other file of a pair .hdr, .img; UserError if it is missing."""
    other = path.with_suffix(suffix.upper() if path.suffix.isupper() else suffix)
    if not other.is_file():
        raise UserError(f"{path}: its partner {other.name} is missing; expected: .hdr and .img side by side")
    return other


def _check_type(path: Path, code: int) -> None:
    name = {**nib.nifti1.data_type_codes.label}.get(code, f"code {code}")
    if name not in _NUMBERS:
        raise UserError(f"{path}: voxels of type {name}; expected: {', '.join(_NUMBERS)}")


def _values(found: Inspected) -> NDArray[np.generic]:
    dtype = found.stored.header.get_data_dtype()
    values = read_array(found.stored.data, dtype, math.prod(found.shape), found.start, found.end)
    if not dtype.isnative:
        values = np.asarray(values).astype(dtype.newbyteorder("="))
    return values.reshape(found.shape, order="F")


def _scaling(path: Path, header: nib.Nifti1Header) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 or NaN means none, by the standard."""
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise UserError(f"{path}: {one_line(error)}; expected: finite scl_slope and scl_inter") from None
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept))


def _check_name(path: Path) -> list[Note]:
    named = path.name.lower().endswith(".gz")
    if named == is_gzipped(path) or path.suffix.lower() in (".hdr", ".img"):
        return []
    text = "gzip in spite of its name" if not named else "not gzip in spite of its name"
    return [Note("misnamed", f"the file is {text}; it was read by its content", "repair")]
