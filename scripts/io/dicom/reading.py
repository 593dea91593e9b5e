"""Reading a CT series from DICOM: values in HU, geometry, what was noticed."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from pydicom import Dataset

from ...errors import UserError
from ...messages import some
from ..geometry_checks import check_geometry
from ..limits import check_size
from ..native import NativeError, read
from ..padding import LIGHTEST_AIR_HU, Padding
from ..volume import Note, Scan
from .geometry import POSITIONS_ROUNDED, SliceStack, stack_slices
from .header import COMPLETE, Slice, frame_count, get_number, get_text, reference
from .series import Series, choose_series, list_series

_MOST_DECODERS = 4  # threads, each with a process in which GDCM decodes


def read_dicom(path: Path, series: str | None = None) -> Scan:
    """Read one CT series.

    Args:
        path: a folder, searched with its subfolders, or one file; a .zip is opened with `unpacked`
            before.
        series: SeriesNumber, SeriesInstanceUID or the id that the list of series shows; needed
            where the folder holds more than one axial CT series.

    Returns:
        The scan: values in HU, (columns, rows, slices), int16, or float32 where slope or intercept
        is fractional; padding as stored. Slices ascend along the normal, row direction x column
        direction (PS3.3 C.7.6.2.1.1).

    Raises:
        UserError: if there is no CT series or several, or if its files do not make one volume.
    """
    chosen, notes = choose_series(path, list_series(path), series)
    _check_values(chosen)
    _check_rescaling(chosen)
    for one in chosen.slices:
        check_size(one.path, (one.columns, one.rows, len(chosen.slices)))
    stack = stack_slices(chosen.slices)
    first = [plane[0] for plane in stack.planes]
    shape = (first[0].columns, first[0].rows, len(first))
    geometry = check_geometry(path, shape, stack.affine, stack.voxel_size_known, tolerance=POSITIONS_ROUNDED)
    stack.notes = [*notes, *_empty_files(path, chosen), *_value_notes(chosen), *stack.notes, *geometry]
    values = _read_values(stack)
    files = {one.path: one.header for one in first}  # in the order of the slices; of frames the last
    return Scan(
        name=path.stem if path.is_file() else path.resolve().name,
        path=path,
        kind="dicom",
        values=values,
        affine=stack.affine,
        voxel_size_known=stack.voxel_size_known,
        facts=_facts(chosen, stack),
        notes=stack.notes,
        patient=get_text(first[0].header, "PatientID"),
        padding=named_padding(first[0].header, first[0].rescale or (1.0, 0.0)),
        files=list(files),
        headers=[reference(header) for header in files.values()],
        frames=[one.frame for one in first],
    )


def named_padding(header: Dataset, rescale: tuple[float, float]) -> Padding | None:
    """Return what PixelPaddingValue and PixelPaddingRangeLimit name (PS3.3 C.7.5.1.1.2), in HU.

    None is returned where none is named, or where it is as dark as air.
    """
    value = get_number(header, "PixelPaddingValue")
    if value is None:
        return None
    limit = get_number(header, "PixelPaddingRangeLimit")
    signed = get_number(header, "PixelRepresentation") == 1
    bounds = [_as_stored(one, signed) * rescale[0] + rescale[1] for one in (value, value if limit is None else limit)]
    return Padding(min(bounds), max(bounds)) if max(bounds) > LIGHTEST_AIR_HU else None


def _as_stored(value: float, signed: bool) -> float:
    """Restore the sign of a value stored in the other 16-bit type."""
    if signed:
        return value - 65536 if value > 32767 else value
    return value + 65536 if value < 0 else value


def _check_values(series: Series) -> None:
    for one in series.slices:
        photometric = get_text(one.header, "PhotometricInterpretation")
        samples = get_number(one.header, "SamplesPerPixel") or 1
        if photometric not in ("MONOCHROME2", "") or samples != 1:
            found = f"{photometric} with {samples:g} sample(s) a pixel"
            raise UserError(f"{one.path}: {found}; expected: CT images in HU, MONOCHROME2 with one sample")
        bits, high = get_number(one.header, "BitsStored"), get_number(one.header, "HighBit")
        if bits and high and high >= bits:  # GDCM takes the lowest bits, DCMTK those below the HighBit
            found = f"{bits:g} bits stored up to bit {high:g}, which readers take for different values"
            raise UserError(f"{one.path}: {found}; expected: HighBit {bits - 1:g}, one below BitsStored (PS3.5 8.1.1)")
    several = {(one.path, one.rescale) for one in series.slices}
    if len(several) > len({one.path for one in series.slices}):
        found = "frames of one file with different rescale slopes or intercepts"
        raise UserError(f"{series.slices[0].path}: {found}; expected: one rescaling a file (split it into slices)")


def _check_rescaling(series: Series) -> None:
    silent = [one.path.name for one in series.slices if one.rescale is None]
    if silent and len(silent) < len(series.slices):
        found = f"{some(silent)}: no RescaleSlope and RescaleIntercept, the other slices have them"
        raise UserError(f"{series.slices[0].path.parent}: {found}; expected: all slices in HU")


def _value_notes(series: Series) -> list[Note]:
    notes = []
    kinds = sorted({get_text(one.header, "RescaleType") for one in series.slices})
    if any(one.rescale is None for one in series.slices) or not set(kinds) <= {"", "HU"}:
        kind = ", ".join(filter(None, kinds)) or "unknown"
        words = f"The files do not say that their values are HU (rescaling absent or of type {kind})."
        notes.append(Note("not_hu", words, "warning"))
    if any(get_text(one.header, "LossyImageCompression") == "01" for one in series.slices):
        words = "The images were compressed with loss once; faint opacities may have gone with it."
        notes.append(Note("lossy_compression", words, "warning"))
    bare = len({one.path for one in series.slices if not one.preamble})
    if bare:
        words = f"{bare} file(s) have no DICOM preamble; their encoding was taken from their first attributes."
        notes.append(Note("no_preamble", words, "assumption"))
    return notes


def _empty_files(path: Path, series: Series) -> list[Note]:
    """Say how many empty files lie beside the slices, such as a copy leaves that broke off."""
    folders = {one.path.parent for one in series.slices} if path.is_dir() else set()
    beside = (file for folder in folders for file in folder.iterdir() if not file.name.startswith("."))
    empty = sum(file.is_file() and file.stat().st_size == 0 for file in beside)
    words = f"{empty} file(s) of 0 bytes lie beside the slices; where they were slices, a part of the scan is missing."
    return [Note("empty_files", words, "warning")] if empty else []


def _read_values(stack: SliceStack) -> NDArray[Any]:
    planes = stack.planes
    rescales = np.array([one.rescale or (1.0, 0.0) for plane in planes for one in plane])
    dtype = np.int16 if np.array_equal(rescales, np.round(rescales)) else np.float32
    values = np.empty((len(planes), planes[0][0].rows, planes[0][0].columns), dtype)
    decode = lru_cache(maxsize=1)(_decode)  # the frames of a file follow each other
    several = any(one.frame for plane in planes for one in plane)
    threads = min(_MOST_DECODERS, torch.get_num_threads())  # a process of --workers has its part of the machine
    with ThreadPoolExecutor(1 if several else threads) as pool:
        clipped = sum(pool.map(partial(_read_plane, decode), planes, values))
    twins = sum(len(plane) - 1 for plane in planes)
    if twins:
        words = f"{twins} slice(s) were there more than once with the same pixels; one of each was kept."
        stack.notes.append(Note("duplicates_dropped", words, "repair"))
    if clipped:
        words = f"{clipped} voxel(s) lay beyond what 16 bits hold and were clipped to -32768 or 32767 HU."
        stack.notes.append(Note("hu_clipped", words, "repair"))
    return values.transpose(2, 1, 0)


def _read_plane(decode: Callable[[Path, str, int], NDArray[Any]], plane: list[Slice], target: NDArray[Any]) -> int:
    """Decode the slice of a plane into the volume; return how many values did not fit."""
    hu = _frame(decode, plane[0])
    for twin in plane[1:]:
        _check_twin(plane[0], twin, np.array_equal(hu, _frame(decode, twin)))
    return _put(hu, target)


def _frame(decode: Callable[[Path, str, int], NDArray[Any]], one: Slice) -> NDArray[Any]:
    return decode(one.path, one.compression.name, one.rows * one.columns * frame_count(one.header))[one.frame]


def _put(hu: NDArray[Any], target: NDArray[Any]) -> int:
    """Store one slice in the volume's type; return how many values did not fit."""
    if hu.dtype == target.dtype or target.dtype.kind == "f":
        target[:] = hu
        return 0
    low, high = np.iinfo(target.dtype).min, np.iinfo(target.dtype).max
    target[:] = np.clip(hu, low, high)
    return int(np.count_nonzero((hu < low) | (hu > high)))


def _check_twin(one: Slice, twin: Slice, same_pixels: bool) -> None:
    same_place = one.position is None or twin.position is None or np.allclose(one.position, twin.position, atol=0.01)
    if not (same_pixels and same_place):
        found = f"{one.path.name} and {twin.path.name} lie at one position and differ"
        expected = "one image at each position (move a second reconstruction or time point away)"
        raise UserError(f"{one.path.parent}: {found}; expected: {expected}")


def _decode(path: Path, syntax: str, voxels: int) -> NDArray[Any]:
    """Return the HU of a file's frames, (frames, rows, columns), through GDCM."""
    try:
        return read(path, "GDCMImageIO", voxels)
    except NativeError as error:
        expected = f"{COMPLETE}, or converted (gdcmconv --raw IN OUT)"
        raise UserError(f"{path}: pixels ({syntax}) cannot be decoded ({error}); expected: {expected}") from None


def _date(header: Dataset) -> str | None:
    """Return the day of the acquisition, else of the study, YYYY-MM-DD; None if not stated."""
    for keyword in ("AcquisitionDate", "StudyDate"):
        with suppress(ValueError):
            return datetime.strptime(get_text(header, keyword), "%Y%m%d").date().isoformat()
    return None


def _facts(series: Series, stack: SliceStack) -> dict[str, Any]:
    first = stack.planes[0][0]
    return {
        "date": _date(first.header),
        "modality": series.modality,
        "series": series.number,
        "series_id": series.id,
        "manufacturer": get_text(first.header, "Manufacturer"),
        "model": get_text(first.header, "ManufacturerModelName"),
        "kernel": get_text(first.header, "ConvolutionKernel"),
        "kvp": get_number(first.header, "KVP"),
        "slice_thickness_mm": first.thickness,
        "spacing_mm": [float(size) for size in voxel_sizes(stack.affine)] if stack.voxel_size_known else None,
        "body_part": get_text(first.header, "BodyPartExamined"),
        "patient_position": get_text(first.header, "PatientPosition"),
        "compression": first.compression.name,
    }
