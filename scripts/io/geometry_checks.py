"""Checks of a scan's grid by its header alone: directions, voxel size, extent; for every format."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes

from ..errors import UserError
from ..messages import counted
from .grids import Grid, check_belongs
from .volume import Affine, Note, Scan, axial_axes

SHEAR_TOLERANCE = 1e-3
"""Largest cosine between two axes that counts as a right angle: 0.06 degrees, what rounded headers
reach."""

LARGEST_TILT = 30.0  # degrees; CT gantries tilt by as much (IEC 60601-2-44 scanners: -30 to 30)
SMALLEST_SLICE = 16  # voxels along an edge
FEW_SLICES = 5
PIXEL_MM, SLICE_MM = (0.2, 3.0), (0.2, 20.0)  # plausible voxel sizes of a chest CT
POSSIBLE_MM = (0.01, 100.0)  # sizes of a voxel beyond which no scan of a patient is
SMALLEST_FIELD_OF_VIEW = 150.0  # mm


def check_geometry(
    source: str | Path,
    shape: Sequence[int],
    affine: Affine,
    voxel_size_known: bool = True,
    picture: bool = False,
    tolerance: float = SHEAR_TOLERANCE,
) -> list[Note]:
    """Check the grid of one scan; return what a person should know.

    Args:
        source: what an error names, the file or folder.
        shape: (X, Y, Z) as stored.
        affine: voxel index to mm, RAS, (4, 4).
        voxel_size_known: whether the affine holds real millimetres; sizes are judged only then.
        picture: whether it is one 8-bit picture, for which one slice is no finding.
        tolerance: largest cosine between two axes that counts as a right angle.

    Raises:
        UserError: for an affine that is not a grid of axial slices (NaN, singular, sheared in
            plane, tilted by more than 30 degrees) and for slices below 16 x 16 voxels.
    """
    notes = check_directions(source, affine, tolerance) + _check_slices(source, shape, affine, picture)
    return notes + (check_extent(source, shape, affine) if voxel_size_known else [])


def check_directions(source: str | Path, affine: Affine, tolerance: float = SHEAR_TOLERANCE) -> list[Note]:
    """Refuse an affine that spans no volume or is sheared; note a gantry tilt.

    In-plane axes must be orthogonal, because the network sees slices as they are stored. Slices
    that are only shifted against each other, as a tilted gantry leaves them, are usable.
    """
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        found = "holds NaN or infinite numbers" if affine.shape == (4, 4) else f"has the shape {affine.shape}"
        raise UserError(f"{source}: the affine {found}; expected: 4 x 4 numbers, a valid orientation and origin")
    sizes = voxel_sizes(affine)
    if (sizes == 0).any() or abs(np.linalg.det(affine[:3, :3] / sizes)) < SHEAR_TOLERANCE:
        found = np.array2string(affine[:3, :3], precision=4, separator=", ").replace("\n", "")
        raise UserError(f"{source}: singular affine {found}; expected: three independent directions, none of length 0")
    if not np.allclose(affine[3], (0, 0, 0, 1), rtol=0, atol=1e-6):  # a transposed one has its origin there
        last = ", ".join(f"{value:g}" for value in affine[3])
        raise UserError(f"{source}: the last row of the affine is {last}; expected: 0, 0, 0, 1")
    x, y, z = (affine[:3, axis] / sizes[axis] for axis in axial_axes(affine))
    if abs(x @ y) > tolerance:
        angle = np.degrees(np.arccos(x @ y))
        raise UserError(
            f"{source}: in-plane axes at {angle:.2f} degrees (shear); expected: 90, resample the scan first"
        )
    return _check_tilt(source, x, y, z, tolerance)


def _check_tilt(source: str | Path, x: Affine, y: Affine, z: Affine, tolerance: float) -> list[Note]:
    normal = np.cross(x, y)
    beside = np.linalg.norm(z - (z @ normal) * normal / (normal @ normal))  # sine of the tilt
    tilt = float(np.degrees(np.arctan2(beside, abs(z @ normal))))
    if beside <= tolerance:
        return []
    if tilt > LARGEST_TILT + 0.1:
        raise UserError(
            f"{source}: slices shifted by {tilt:.1f} degrees against their normal; "
            f"expected: a gantry tilt up to {LARGEST_TILT:g} degrees, resample the scan first"
        )
    text = (
        f"slices are tilted by {tilt:.1f} degrees (gantry tilt); they are segmented as stored, the mask is tilted, too"
    )
    return [Note("gantry_tilt", text, "warning")]


def _check_slices(source: str | Path, shape: Sequence[int], affine: Affine, picture: bool) -> list[Note]:
    """Refuse slices too small to hold a lung; note a scan of few slices."""
    x, y, z = (shape[axis] for axis in axial_axes(affine))
    if min(x, y) < SMALLEST_SLICE:
        raise UserError(
            f"{source}: axial slices of {x} x {y} voxels (left-right x front-back); "
            f"expected: at least {SMALLEST_SLICE} x {SMALLEST_SLICE}"
        )
    if picture or z >= FEW_SLICES:
        return []
    text = f"{counted(z, 'axial slice')}: not a whole chest, so figures hold for this part of it only"
    return [Note("few_slices", text, "warning")]


def check_extent(source: str | Path, shape: Sequence[int], affine: Affine) -> list[Note]:
    """Note voxel sizes and fields of view that a chest CT does not have.

    Raises:
        UserError: for voxels of less than 0.01 or more than 100 mm, at which lungs of a litre have
            no voxel or billions.
    """
    axes = list(axial_axes(affine))
    sizes = voxel_sizes(affine)[axes]
    counts = np.asarray(shape)[axes]
    if not ((sizes >= POSSIBLE_MM[0]) & (sizes <= POSSIBLE_MM[1])).all():
        found = " x ".join(f"{size:.3g}" for size in sizes)
        expected = f"{POSSIBLE_MM[0]:g} to {POSSIBLE_MM[1]:g} mm along each axis"
        raise UserError(f"{source}: voxels of {found} mm (left-right, front-back, head-foot); expected: {expected}")
    low, high = np.array([PIXEL_MM, PIXEL_MM, SLICE_MM]).T
    if ((sizes < low) | (sizes > high)).any():
        found = " x ".join(f"{size:.3g}" for size in sizes)
        usual = f"{PIXEL_MM[0]:g} to {PIXEL_MM[1]:g} mm in plane, {SLICE_MM[0]:g} to {SLICE_MM[1]:g} mm between slices"
        text = f"voxels of {found} mm (left-right, front-back, head-foot); chest CT has {usual}"
        return [Note("implausible_voxel_size", f"{text}: volumes may be wrong", "warning")]
    extent = (sizes * counts)[:2]
    if (extent < SMALLEST_FIELD_OF_VIEW).any():
        text = f"field of view of {extent[0]:.0f} x {extent[1]:.0f} mm in plane: smaller than a chest"
        return [Note("small_field_of_view", text, "warning")]
    return []


def check_same_grid(other: Scan, scan: Scan) -> None:
    """Refuse, as `check_belongs`, a mask whose voxels are not those of its scan, in whatever order.

    Half a voxel off is fine: other programs round what they write.
    """
    mask, grid = (Grid(str(one.path), one.values.shape, one.affine) for one in (other, scan))
    check_belongs(mask, grid, tolerance_mm=min(scan.spacing_lps) / 2)


def is_placeholder(affine: Affine) -> bool:
    """Whether an affine looks like a writer's default: voxels of exactly 1 mm and no origin.

    >>> is_placeholder(np.eye(4)), is_placeholder(np.diag([0.7, 0.7, 1.0, 1.0]))
    (True, False)
    """
    sizes = voxel_sizes(affine)
    return bool((sizes == 1).all() and not affine[:3, 3].any())
