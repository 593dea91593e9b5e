"""Where the voxels of a NIfTI file start: what the header says, judged by the size of the file.

After the NIfTI-1 standard (nifti1.h, DFWG 2003): a single file holds a header of 348 bytes, four
bytes that announce extensions, the extensions, then the voxels. Many writers leave vox_offset at 0,
which SPM and others take for 352. A vox_offset that is no byte of the file is refused.
"""

import math
from pathlib import Path

import nibabel as nib
import numpy as np

from ...errors import UserError
from ..payload import open_payload, unpacked_length
from ..volume import Note

_MOST_EXTENSIONS = 1000
_FLAG = 4  # bytes behind the header; the first is not 0 where extensions follow


def locate_voxels(data: Path, header: nib.Nifti1Header, said: float, payload: int) -> tuple[int, list[Note]]:
    """Find the byte of the unpacked file at which the voxels start.

    Args:
        data: the file of the voxels; for a pair the .img.
        header: the header, which knows whether it stands in the same file.
        said: vox_offset as stored, before any repair.
        payload: bytes of the voxels by the header's dimensions and type.

    Raises:
        UserError: for a file that is cut off, or whose size and vox_offset contradict each other.
    """
    lowest = int(header.single_vox_offset) if header.is_single else 0
    usable = math.isfinite(said) and said >= lowest and said == int(said)
    length = unpacked_length(data, (int(said) if usable else lowest) + payload, lowest + payload)
    if usable and said + payload == length:
        return int(said), []
    found = length - payload
    if usable and found == lowest < said and _ends_extensions(data, header, int(header.sizeof_hdr), int(said)):
        whole = int(said) + payload  # the extensions are there, so that it is the voxels that end early
        raise UserError(f"{data}: is truncated, {length} bytes of {whole}; expected: {whole} unpacked")
    if found == lowest or _fits(data, header, said, found):
        if found == said:
            return found, []
        if not 0 <= said <= length:
            raise UserError(f"{data}: vox_offset is {said:g}; expected: {found}, where by its size the voxels start")
        text = f"vox_offset is {said:g}; by the size of the file the voxels start at byte {found}, where they were read"
        return found, [Note("voxel_offset", text, "repair")]
    if usable and found > said:
        text = f"{found - int(said)} bytes follow the voxels and were not read: is the header that of another file?"
        return int(said), [Note("bytes_behind", text, "warning")]
    if found < lowest or usable:
        expected = (int(said) if usable else lowest) + payload
        raise UserError(
            f"{data}: is truncated, {length} bytes of {expected}; expected: {expected} unpacked, as its header says"
        )
    raise UserError(
        f"{data}: vox_offset is {said:g}, and {length} bytes for {payload} of voxels do not tell where these start; "
        f"expected: {lowest} or another byte behind the header"
    )


def _fits(data: Path, header: nib.Nifti1Header, said: float, found: int) -> bool:
    """Return whether voxels may start there: behind a bare header or behind extensions."""
    if not header.is_single:
        return False
    size = int(header.sizeof_hdr)
    return (said == size == found) or (found > size + _FLAG and _ends_extensions(data, header, size, found))


def _ends_extensions(data: Path, header: nib.Nifti1Header, start: int, end: int) -> bool:
    size = np.dtype("i4").newbyteorder(header.endianness)
    with open_payload(data) as stream:
        stream.seek(start)
        if not stream.read(1).strip(b"\0"):
            return False
        place = start + _FLAG
        for _ in range(_MOST_EXTENSIONS):
            if place >= end:
                break
            stream.seek(place)
            step = int(np.frombuffer(stream.read(4).ljust(4, b"\0"), size)[0])
            if step < 8:
                return False
            place += step
    return place == end
