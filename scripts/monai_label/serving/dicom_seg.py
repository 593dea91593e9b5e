"""Masks as DICOM SEG and back, with who made them: the model, or an annotator."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom_seg
import SimpleITK as sitk  # noqa: N813
from fastapi import HTTPException
from monailabel.datastore.utils.convert import nifti_to_dicom_seg
from numpy.typing import NDArray
from pydicom import Dataset

from ...errors import UserError
from ...io.dicom.segment_codes import CATEGORY, OPACITY, REGION
from ...io.grids import TOLERANCE_MM
from ..request_values import check_request

BY_MODEL = "AUTOMATIC"
BY_ANNOTATOR = "SEMIAUTOMATIC"
"""SegmentAlgorithmType (PS3.3 C.8.20.2.3): what tells an annotator's label from a mask of the
model."""

SEGMENT = {"name": "infection", "description": "COVID-19 infection, outlined by a network"}


def write_seg(series: str, mask: str, label_info: Any, made_by: str) -> str:
    """Write a mask as DICOM SEG that refers to its series.

    Args:
        series: folder of the DICOM series.
        mask: a file that ITK reads, on the grid of the series; 0 is background.
        label_info: what the client says of each segment, as MONAI Label documents it; may be empty.
        made_by: `BY_MODEL` or `BY_ANNOTATOR`, whatever the client says.

    Returns:
        A temporary file.

    Raises:
        HTTPException: 409 if the mask marks nothing, 500 if no file could be written.
        UserError: if `label_info` is no list of segments.
    """
    given = check_request("infer", {"label_info": label_info or []})["label_info"]
    numbers = np.unique(sitk.GetArrayFromImage(sitk.ReadImage(mask)).astype(int))
    marked = numbers[numbers != 0].tolist()
    try:
        segments = [_segment(index, number, given, made_by) for index, number in enumerate(marked)]
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"label_info: {error}; expected: what MONAI Label documents of a segment") from None
    if not segments:
        raise HTTPException(409, "no infection is marked, and DICOM SEG needs a segment; expected: output=image")
    file = str(nifti_to_dicom_seg(series, mask, segments))
    if not Path(file).is_file():
        raise HTTPException(500, "no DICOM SEG could be written; the server's log says why")
    return file


def _segment(index: int, number: int, given: Sequence[Mapping[str, Any]], made_by: str) -> dict[str, Any]:
    """Complete a client's description of a segment; MONAI Label's default is spleen."""
    said = {**SEGMENT, **(given[index] if index < len(given) else {})}
    attribute = {
        "SegmentLabel": said["name"],
        "SegmentDescription": said["description"],
        "SegmentAlgorithmName": "MONAI Label",
        "SegmentedPropertyCategoryCodeSequence": _code(CATEGORY),
        "SegmentedPropertyTypeCodeSequence": _code(OPACITY.type),
        "AnatomicRegionSequence": _code(REGION),
        "recommendedDisplayRGBValue": [int(one) for one in said.get("color", OPACITY.colour)[:3]],
        **said.get("segmentAttribute", {}),
        "labelID": number,
        "SegmentAlgorithmType": made_by,
    }
    return {"model_name": said["name"], **said, "segmentAttribute": attribute}


def _code(code: tuple[str, str, str]) -> dict[str, str]:
    return dict(zip(("CodeValue", "CodingSchemeDesignator", "CodeMeaning"), code, strict=True))


def segments_of_annotators(seg: Dataset) -> list[int]:
    """Return the numbers of the segments of a SEG that no algorithm made alone."""
    return [
        int(one.SegmentNumber)
        for one in seg.get("SegmentSequence") or []
        if str(one.get("SegmentAlgorithmType", BY_MODEL)) != BY_MODEL
    ]


def write_label(seg: Dataset, scan: str, label: str) -> None:
    """Write what annotators marked in a SEG as a file on the scan's grid.

    Slices without a frame are empty.

    Args:
        seg: the SEG with its pixels.
        scan: the scan's NIfTI file.
        label: NIfTI file to write: segment numbers, 0 elsewhere.

    Raises:
        UserError: if the SEG does not lie on the scan's voxels.
    """
    image, grid = pydicom_seg.MultiClassReader().read(seg).image, sitk.ReadImage(scan)
    _check_voxels(image, grid)
    placed = sitk.Resample(image, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
    values: NDArray[np.uint8] = sitk.GetArrayFromImage(placed)
    values[~np.isin(values, segments_of_annotators(seg))] = 0
    kept = sitk.GetImageFromArray(values)
    kept.CopyInformation(grid)
    with tempfile.TemporaryDirectory(dir=Path(label).parent) as folder:
        written = Path(folder) / Path(label).name
        sitk.WriteImage(kept, str(written), True)
        written.replace(label)


def _check_voxels(image: sitk.Image, grid: sitk.Image) -> None:
    """Refuse a SEG whose corner voxels are not voxels of the grid."""
    size, spacing = np.array(image.GetSize()), np.array(grid.GetSpacing())
    for corner in np.ndindex(2, 2, 2):
        point = image.TransformIndexToPhysicalPoint([int(one) for one in (size - 1) * corner])
        index = np.array(grid.TransformPhysicalPointToContinuousIndex(point))
        distance = float(np.linalg.norm((index - index.round()) * spacing))
        if distance > TOLERANCE_MM:
            raise UserError(f"lies {distance:.3g} mm off the scan's voxels; expected: within {TOLERANCE_MM:g} mm")
        if (index.round() < 0).any() or (index.round() >= grid.GetSize()).any():
            raise UserError("reaches beyond the scan; expected: the scan's slices")
