"""One scan as it was stored: values, geometry, what was noticed while it was read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

Kind = Literal["nifti", "itk", "dicom", "picture"]


@dataclass(frozen=True)
class Note:
    """Something about a scan that a person should know.

    Attributes:
        code: short name of the finding, for programs: "few_slices", "not_a_number", ...
        text: one sentence that says what was found and what it means or what was done.
        kind: "warning" (the result may be worse; `--strict` refuses), "repair" (mended safely, recorded) or
            "assumption" (something that the file does not say was taken for granted).
    """

    code: str
    text: str
    kind: Literal["warning", "repair", "assumption"]


@dataclass
class Scan:
    """A scan in its stored orientation.

    Attributes:
        name: the input's name without extension; what the case is called.
        path: the file, or the DICOM folder.
        kind: how it was stored.
        values: stored values (X, Y, Z), in the type that they were stored in; not yet HU where a slope is set.
        affine: voxel index to millimetres, RAS as in NIfTI, (4, 4) float64.
        slope: what stored values are multiplied with.
        intercept: what is added then.
        voxel_size_known: whether the affine holds real millimetres; without it nothing is said in ml or mm.
        facts: what the report repeats: modality, scanner, kernel, stored type, ...; nothing that names a person.
        notes: findings of the reader.
        files: DICOM: the files in the order of the third axis; else empty.
    """

    name: str
    path: Path
    kind: Kind
    values: NDArray[Any]
    affine: NDArray[np.float64]
    slope: float = 1.0
    intercept: float = 0.0
    voxel_size_known: bool = True
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    @property
    def picture(self) -> bool:
        """Whether it is an 8-bit picture."""
        return self.kind == "picture"

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along the stored axes in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    @property
    def spacing_lps(self) -> tuple[float, float, float]:
        """Voxel size along left, posterior, superior in mm: the stored axes, turned."""
        axes = nib.orientations.io_orientation(self.affine)[:, 0]
        x, y, z = (float(self.spacing[int(np.flatnonzero(axes == axis)[0])]) for axis in range(3))
        return x, y, z

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel in mm3, also where a gantry tilt shears the axes."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))
