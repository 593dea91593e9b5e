"""Say where lesions lie in the patient and in the DICOM series."""

from typing import Any

import numpy as np
from nibabel.affines import apply_affine

from ..io.volume import Scan, canonical


def locate_lesions(lesions: list[dict[str, Any]], scan: Scan) -> None:
    """Add to listed lesions where they lie, as far as it is known.

    "centroid_mm" is in the patient's coordinates as DICOM has them (towards left, posterior,
    superior). "instance_number" is that of the DICOM image with the lesion's largest slice;
    "frame_number" takes its place in a multi-frame file.
    """
    if scan.voxel_size_known and not scan.picture:
        for lesion in lesions:
            x, y, z = apply_affine(scan.lps()[1], lesion["centroid_index"]).tolist()
            lesion["centroid_mm"] = [-x, -y, z]
    shape = scan.values.shape
    stored = canonical(np.broadcast_to(np.arange(shape[2]), shape), scan.affine)
    if not scan.files or (stored[0, 0] != stored[-1, -1]).any():  # stored slices are not axial
        return
    for lesion in lesions:
        lesion |= _image(scan, int(stored[0, 0, lesion["largest_slice_from_inferior"] - 1]))


def _image(scan: Scan, k: int) -> dict[str, int]:
    from ..io.dicom.header import get_number  # pydicom

    if len(scan.files) == 1 < scan.values.shape[2]:
        return {"frame_number": scan.frames[k] + 1}
    if len(scan.files) < scan.values.shape[2]:
        return {}
    number = get_number(scan.headers[k], "InstanceNumber")
    return {} if number is None else {"instance_number": int(number)}
