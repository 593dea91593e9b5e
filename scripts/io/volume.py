"""One scan as it was stored: values, geometry, what was noticed while it was read."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from .padding import Padding

AXES = "LPS"
"""Canonical orientation: x to the patient's left, y to posterior, z to superior. A radiological
display shows a slice [x, y] of it in column x and row y: volumes and pictures reach the network the
same way round."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From DICOM's and ITK's world to NIfTI's; the affine of a picture, whose columns run left and rows
to posterior."""

Affine = NDArray[np.float64]
Kind = Literal["nifti", "itk", "dicom", "picture", "memory"]


def axial_axes(affine: Affine) -> tuple[int, int, int]:
    """The stored axes that run closest to left-right, anterior-posterior and head-foot.

    >>> axial_axes(np.diag([1.0, 1.0, 5.0, 1.0])[:, [2, 0, 1, 3]])
    (1, 2, 0)
    """
    towards = nib.io_orientation(affine)[:, 0].astype(int).tolist()
    return towards.index(0), towards.index(1), towards.index(2)


def spacing_lps(affine: Affine) -> tuple[float, float, float]:
    """Return the voxel size along left, posterior, superior in mm, of the stored axes turned.

    The third is the distance between slices along their normal, also where a gantry tilt shifts
    them. Rounded to a millionth of a micrometre: the last bits depend on the order of the axes.
    """
    lengths = voxel_sizes(affine).tolist()
    x, y, _ = (lengths[axis] for axis in axial_axes(affine))
    z = float(abs(np.linalg.det(affine[:3, :3]))) / (x * y)
    return round(x, 9), round(y, 9), round(z, 9)


def canonical(array: NDArray[Any], affine: Affine) -> NDArray[Any]:
    """Return a view of a stored array with axes turned to LPS; writes go into the array."""
    return nib.orientations.apply_orientation(array, _turn(affine))


def _turn(affine: Affine) -> NDArray[np.float64]:
    turn: NDArray[np.float64] = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(AXES)
    )
    return turn


@dataclass(frozen=True)
class Note:
    """Something about a scan that a person should know."""

    code: str  # short name of the finding, for programs: "few_slices", "not_a_number", ...
    text: str  # one sentence: what was found and what it means or what was done
    # the result may be worse (`--strict` refuses); mended safely; taken for granted
    kind: Literal["warning", "repair", "assumption"]


@dataclass
class Scan:
    """A scan in its stored orientation."""

    name: str  # the input's name without extension; what the case is called
    path: Path  # the file, or the DICOM folder; of a scan in memory its name
    kind: Kind
    values: NDArray[Any]  # (X, Y, Z) in the type they were stored in; not yet HU where a slope is set
    affine: Affine  # voxel index to millimetres, RAS as in NIfTI, (4, 4) float64
    slope: float = 1.0  # what stored values are multiplied with
    intercept: float = 0.0  # what is added then
    voxel_size_known: bool = True  # whether the affine is in real millimetres; never that of a picture
    facts: dict[str, Any] = field(default_factory=dict)  # what the report repeats; nothing names a person
    notes: list[Note] = field(default_factory=list)  # findings of the reader
    padding: Padding | None = None  # DICOM: PixelPaddingValue in HU; None: nothing, or as dark as air
    patient: str = ""  # DICOM: PatientID, which no result repeats; empty if not known
    files: list[Path] = field(default_factory=list)  # DICOM: in the order of the third axis; else empty
    headers: list[Any] = field(default_factory=list)  # DICOM: of each file, what a reference to it needs
    frames: list[int] = field(default_factory=list)  # DICOM: frame of its file that each slice is

    @property
    def picture(self) -> bool:
        """Whether it is an 8-bit picture."""
        return self.kind == "picture"

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along the stored axes in mm."""
        x, y, z = voxel_sizes(self.affine).tolist()
        return x, y, z

    @property
    def spacing_lps(self) -> tuple[float, float, float]:
        """Voxel size along left, posterior, superior in mm, see the function of that name."""
        return spacing_lps(self.affine)

    @property
    def known_spacing_lps(self) -> tuple[float, float, float] | None:
        """As `spacing_lps`; None where the voxel size is unknown."""
        return self.spacing_lps if self.voxel_size_known else None

    def axial_slices(self) -> list[int] | None:
        """Return where along the stored third axis each axial slice lies, inferior to superior.

        None where the stored slices are not axial.
        """
        if axial_axes(self.affine)[2] != 2:
            return None
        along: list[int] = canonical(np.broadcast_to(np.arange(self.values.shape[2]), self.values.shape), self.affine)[
            0, 0
        ].tolist()
        return along

    def source(self, k: int) -> tuple[int, int | None] | None:
        """Return which of `files` holds a stored slice, and its frame from 1 where it has several.

        None where there are no files, or several of several frames.
        """
        if len(self.files) == self.values.shape[2]:
            return k, None
        return (0, self.frames[k] + 1) if len(self.files) == 1 else None

    def real(self, stored: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return stored values, all or those given, with slope and intercept applied."""
        values: NDArray[Any] = apply_read_scaling(
            np.asarray(self.values if stored is None else stored), self.slope, self.intercept
        )
        return values

    def lps(self) -> tuple[NDArray[Any], Affine]:
        """The stored values with their axes turned to LPS, and the affine of that view."""
        turn = _turn(self.affine)
        affine = self.affine @ nib.orientations.inv_ornt_aff(turn, self.values.shape)
        return nib.orientations.apply_orientation(self.values, turn), affine

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel in mm3, also where a gantry tilt shears the axes."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))
