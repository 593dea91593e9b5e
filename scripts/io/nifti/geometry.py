"""Which of a NIfTI header's geometries holds, in which unit, and whether it can be trusted.

After the NIfTI-1 standard (nifti1.h, DFWG 2003): the sform before the qform, each with a code;
xyzt_units; pixdim.
"""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes

from ...errors import UserError
from ..geometry_checks import Affine, is_placeholder
from ..grids import corner_distance
from ..volume import Note

_TOLERANCE_MM = 0.01
_LONGEST_BY_ROUNDING = 1e-4
"""How far the length of a quaternion may lie above 1: what numbers written with four or five digits
reach."""
_PLAUSIBLE_MM = (0.3, 10.0)  # voxel sizes that are millimetres whatever the unit's code says
_MILLIMETRES = {"mm": 1.0, "meter": 1000.0, "micron": 0.001}


def read_geometry(
    path: Path, header: nib.Nifti1Header, pixdim: Sequence[float], shape: tuple[int, int, int]
) -> tuple[Affine, bool, list[Note]]:
    """Return the affine (RAS) of a NIfTI header in mm, whether these are real ones, and findings.

    Args:
        path: what an error names.
        header: after nibabel's repairs.
        pixdim: the three voxel sizes as they were stored, before nibabel's repairs.
        shape: (X, Y, Z) of one volume.

    Raises:
        UserError: for a qform without a valid quaternion where no sform is set.
    """
    affine, notes = _choose_form(path, header, pixdim, shape)
    factor, unit_notes = _unit(header, affine)
    affine[:3] *= factor
    doubt = _doubt(header, affine, pixdim)
    if doubt:
        text = f"{doubt}: the voxel size is not known, nothing is measured in mm or ml"
        return affine, False, [*notes, Note("voxel_size_unknown", text, "warning")]
    return affine, True, notes + unit_notes


def _choose_form(
    path: Path, header: nib.Nifti1Header, pixdim: Sequence[float], shape: tuple[int, int, int]
) -> tuple[Affine, list[Note]]:
    """Return the valid form: sform before qform, unless the sform spans no volume."""
    sform, qform = header.get_sform(), header["qform_code"] > 0
    if header["sform_code"] > 0 and (_spans(sform) or not qform):
        return sform, _compare_forms(header, pixdim, shape)
    if qform:
        try:
            affine, notes = _rotated(header)
        except ValueError as error:
            raise UserError(f"{path}: qform without a rotation ({error}); expected: a valid sform or qform") from None
        return affine, notes + _broken_sform(header)
    text = "the header holds no orientation (sform and qform codes 0); taken for right to left, front to back, feet up"
    directions = "".join(nib.aff2axcodes(header.get_base_affine()))
    return header.get_base_affine(), [Note("orientation_unknown", f"{text} ({directions})", "assumption")]


def _spans(affine: Affine) -> bool:
    return bool(np.isfinite(affine).all() and np.linalg.matrix_rank(affine[:3, :3]) == 3)


def _broken_sform(header: nib.Nifti1Header) -> list[Note]:
    if header["sform_code"] <= 0:
        return []
    code, rows = int(header["sform_code"]), np.array2string(header.get_sform()[:3], precision=4).replace("\n", "")
    return [Note("forms_differ", f"the sform (code {code}) spans no volume, {rows}; the qform is used", "warning")]


def _rotated(header: nib.Nifti1Header) -> tuple[Affine, list[Note]]:
    """Return the qform, a quaternion longer than 1 scaled to 1; ValueError if it is no rotation."""
    scaled = header.copy()
    length = scale_quaternion(scaled)
    if length <= 1:
        return header.get_qform(), []
    text = f"the qform's quaternion has the length {length:.7f} by rounding; it was scaled to 1"
    return scaled.get_qform(), [Note("quaternion_scaled", text, "repair")]


def scale_quaternion(header: nib.Nifti1Header) -> float:
    """Scale a quaternion that is longer than 1 by rounding to 1, in place.

    Returns:
        How long its imaginary part was.

    Raises:
        ValueError: if it is no rotation.
    """
    fields = ("quatern_b", "quatern_c", "quatern_d")
    imaginary = np.array([header[field] for field in fields], np.float64)
    length = float(np.linalg.norm(imaginary))
    if not length <= 1 + _LONGEST_BY_ROUNDING:
        raise ValueError(f"the quaternion's imaginary part has the length {length:g}, at most 1 is expected")
    if length > 1:
        for field, value in zip(fields, imaginary / length, strict=True):
            header[field] = value
    return length


def _compare_forms(header: nib.Nifti1Header, pixdim: Sequence[float], shape: tuple[int, int, int]) -> list[Note]:
    sform = header.get_sform()
    if header["qform_code"] <= 0:
        sizes = voxel_sizes(sform)
        if np.allclose(sizes, pixdim, rtol=0.01, atol=0):
            return []
        found = " x ".join(f"{size:.4g}" for size in sizes), " x ".join(f"{size:.4g}" for size in pixdim)
        text = f"sform and pixdim give different voxel sizes, {found[0]} and {found[1]}; the sform is used"
        return [Note("forms_differ", text, "warning")]
    try:
        apart = corner_distance(shape, sform, _rotated(header)[0])
    except ValueError as error:
        return [Note("forms_differ", f"the qform holds no rotation ({error}); the sform is used", "warning")]
    if apart <= _TOLERANCE_MM:
        return []
    codes = f"codes {int(header['sform_code'])} and {int(header['qform_code'])}"
    text = f"sform and qform ({codes}) place a corner {apart:.2f} mm apart; the sform is used"
    return [Note("forms_differ", text, "warning")]


def _unit(header: nib.Nifti1Header, affine: Affine) -> tuple[float, list[Note]]:
    """Return the factor to millimetres; replace a unit that gives impossible voxels."""
    unit = _unit_name(header)
    if unit == "mm":
        return 1.0, []
    sizes = voxel_sizes(affine)
    found = " x ".join(f"{size:.4g}" for size in sizes)
    low, high = _PLAUSIBLE_MM
    if unit == "unknown" or ((sizes >= low) & (sizes <= high)).all():
        text = f"the unit of length is {unit}; voxels of {found} are taken for millimetres"
        return 1.0, [Note("unit_assumed", text, "assumption")]
    text = f"voxel sizes stored in {unit} ({found}) were converted to millimetres"
    return _MILLIMETRES[unit], [Note("unit_converted", text, "repair")]


def _unit_name(header: nib.Nifti1Header) -> str:
    try:
        unit = str(header.get_xyzt_units()[0])
    except KeyError:  # a code that the standard does not define
        return "unknown"
    return unit if unit in _MILLIMETRES else "unknown"


def _doubt(header: nib.Nifti1Header, affine: Affine, pixdim: Sequence[float]) -> str:
    if len(header.get_data_shape()) < 3:
        return "a single two-dimensional slice has no thickness"
    if not (header["sform_code"] > 0 and _spans(header.get_sform())) and min(pixdim) <= 0:
        return f"pixdim is {', '.join(f'{size:g}' for size in pixdim)}"
    sizes = voxel_sizes(affine)
    oriented = header["sform_code"] > 0 or header["qform_code"] > 0
    if is_placeholder(affine) or ((sizes == 1).all() and not (oriented and _unit_name(header) == "mm")):
        return "voxels of exactly 1 x 1 x 1 without origin, orientation or unit are a writer's default"
    low, high = _PLAUSIBLE_MM
    if _unit_name(header) == "unknown" and ((sizes < low) | (sizes > high)).any():
        return f"voxels of {' x '.join(f'{size:.4g}' for size in sizes)} in an unknown unit"
    return ""
