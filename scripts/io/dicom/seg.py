"""The mask as a DICOM Segmentation object, on the slices that it was found on."""

from pathlib import Path

import numpy as np
from highdicom.color import CIELabColor
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes

from ...errors import UserError
from ...files import write_atomic
from ..volume import Scan
from .derived import Maker, long_string
from .files import UNREADABLE
from .header import get_number
from .segment_codes import CATEGORY, COLOUR, REGION, TYPE
from .sources import REMEDY, read_sources

LABEL = "lung opacity, AI"
DESCRIPTION = (
    "Opacity of the lung as outlined by a neural network that was trained on CT of COVID-19 infection; the network "
    "cannot tell its cause. Research use only, not a medical device."
)
_CATEGORY, _TYPE = CodedConcept(*CATEGORY), CodedConcept(*TYPE)
_COLOUR = CIELabColor.from_rgb(*COLOUR)


def write_dicom_seg(mask: NDArray[np.uint8], scan: Scan, path: Path, maker: Maker) -> Path:
    """Write a binary DICOM SEG (PS3.3 A.51) with one segment, a new series in the scan's study.

    Slices with infection become frames that name their source slice and repeat its position; the
    patient's and the study's attributes are those of the scan, as a SEG must have them. Of an empty
    mask every slice is written as an empty frame, because a SEG needs at least one. Bound in
    memory: headers, and one bit a voxel of the frames.

    Args:
        mask: 0 or 1, (X, Y, Z), in the scan's stored axes.
        scan: what `read_dicom` returned; its first file must still be there.
        path: the file to write.
        maker: the software and what the mask depends on.

    Raises:
        ValueError: if the mask has not the scan's shape or holds other values than 0 and 1.
        UserError: if the scan's files lack what a SEG must repeat of them.
    """
    if mask.shape != scan.values.shape or mask.max(initial=0) > 1:
        raise ValueError(f"mask {mask.shape}, highest {mask.max()}; expected: 0 and 1 in {scan.values.shape}")
    sources = read_sources(scan)
    frames = mask.transpose(2, 1, 0)  # a view
    count = int(get_number(sources[0], "NumberOfFrames") or 1)
    if count > 1:
        if len(sources) > 1:
            raise UserError(f"{scan.path.name}: {len(sources)} multi-frame files; expected for a DICOM SEG: one")
        planes, frames = frames, np.zeros((count, *frames.shape[1:]), np.uint8)
        frames[scan.frames] = planes  # sorted along the normal before
    try:
        segmentation = _segmentation(frames, sources, maker)
        return write_atomic(path, lambda temporary: segmentation.save_as(temporary, enforce_file_format=True))
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{scan.path.name}: no DICOM SEG can refer to this series ({reason}); {REMEDY}") from None


def _segmentation(frames: NDArray[np.uint8], sources: list[Dataset], maker: Maker) -> Segmentation:
    segment = SegmentDescription(
        segment_number=1,
        segment_label=LABEL,
        segmented_property_category=_CATEGORY,
        segmented_property_type=_TYPE,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=long_string(maker.algorithm),
            version=long_string(maker.version),
            family=codes.DCM.ArtificialIntelligence,
        ),
        anatomic_regions=[CodedConcept(*REGION)],
        display_color=_COLOUR,
    )
    segment.SegmentDescription = DESCRIPTION
    attributes = maker.attributes(sources, "SEG")
    return Segmentation(
        source_images=sources,
        pixel_array=frames,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        omit_empty_frames=bool(frames.any()),  # a SEG without frames is none
        content_label="LUNG_OPACITY",
        content_description=attributes["series_description"],
        **attributes,
    )
