"""Whether a scan is a chest CT the right way up, as notes and refusals."""

from __future__ import annotations

from ..anatomy.chest import examine
from ..anatomy.lungs import Lungs
from ..anatomy.orientation import orientation_findings
from ..anatomy.tissue import Tissues
from ..errors import UserError
from ..io.volume import Note, Scan

WHOLE_CHEST_MM = 100.0
"""A body shown whole in the plane over this length must show lung, if it is a chest."""


def check_anatomy(seen: Tissues, scan: Scan, lungs: Lungs) -> list[Note]:
    """Judge body, lungs and the way up.

    A scan is refused on positive evidence only: a body that is shown whole, over a length that a
    chest fills with lung, and no lung in it. Else what is missing is a warning.

    Raises:
        UserError: if it is no chest.
    """
    found = examine(seen)
    length = seen.body.shape[2] * seen.scan.spacing[2]
    if found.body and not found.lungs and not found.body_cut and length >= WHOLE_CHEST_MM:
        raise UserError(f"{scan.path}: {' '.join(found.findings)}; expected: a CT of the chest in HU")
    texts = found.findings + (orientation_findings(seen.scan, lungs) if found.lungs else [])
    return [Note("anatomy", text, "warning") for text in texts]
