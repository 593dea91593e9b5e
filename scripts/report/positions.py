"""Say where lesions lie in the patient and in the DICOM series."""

from typing import Any

from nibabel.affines import apply_affine

from ..io.volume import Scan


def locate_lesions(lesions: list[dict[str, Any]], scan: Scan) -> None:
    """Add to listed lesions where they lie, as far as it is known.

    "centroid_mm" is in the patient's coordinates as DICOM has them (towards left, posterior,
    superior). "instance_number" is that of the DICOM image with the lesion's largest slice;
    "frame_number" takes its place in a multi-frame file.
    """
    if scan.voxel_size_known:
        for lesion in lesions:
            x, y, z = apply_affine(scan.lps()[1], lesion["centroid_index"]).tolist()
            lesion["centroid_mm"] = [-x, -y, z]
    if (stored := scan.axial_slices()) is None:
        return
    for lesion in lesions:
        lesion |= _image(scan, stored[lesion["largest_slice_from_inferior"] - 1])


def _image(scan: Scan, k: int) -> dict[str, int]:
    if (source := scan.source(k)) is None:
        return {}
    file, frame = source
    if frame is not None:
        return {"frame_number": frame}
    from ..io.dicom.header import get_number  # pydicom

    number = get_number(scan.headers[file], "InstanceNumber")
    return {} if number is None else {"instance_number": int(number)}
