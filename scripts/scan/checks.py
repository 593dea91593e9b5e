"""Whether a scan is a chest CT the right way up, as notes and refusals."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from scripts.anatomy.chest import examine, orientation_findings
from scripts.anatomy.lungs import Lungs
from scripts.errors import UserError
from scripts.scan.volume import Note, Scan

WHOLE_CHEST_MM = 100.0
"""A body shown whole in the plane over this length must show lung, if it is a chest."""


def check_anatomy(hu: NDArray[Any], scan: Scan, lungs: Lungs | None) -> list[Note]:
    """Looks for body, lungs and the way up.

    A scan is refused on positive evidence only: a body that is shown whole, over a length that a chest fills with lung,
    and no lung in it. Else what is missing is a warning.

    Args:
        hu: HU (X, Y, Z) in LPS.
        scan: where they come from; a picture, or a scan of unknown voxel size, is not looked at.
        lungs: the lungs found, for the orientation.

    Raises:
        UserError: if it is no chest.
    """
    if scan.picture or not scan.voxel_size_known:
        return []
    spacing = scan.spacing_lps
    found = examine(hu, spacing)
    if found.body and not found.lungs and not found.body_cut and hu.shape[2] * spacing[2] >= WHOLE_CHEST_MM:
        raise UserError(f"{scan.path}: {' '.join(found.findings)} Accepted: a CT of the chest in HU")
    texts = found.findings + (orientation_findings(hu, spacing, lungs) if found.lungs and lungs is not None else [])
    return [Note("anatomy", text, "warning") for text in texts]
