"""A mask as a DICOM Segmentation object, on the slices that it was found on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from highdicom.color import CIELabColor
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from .derived import Maker, long_string, save_object
from .header import get_number
from .segment_codes import CATEGORY, OPACITY, REGION, Segment
from .sources import Sources


def write_dicom_seg(
    mask: NDArray[np.uint8],
    sources: Sources,
    path: Path,
    maker: Maker,
    segments: Sequence[Segment] = (OPACITY,),
    kind: str = "SEG",
) -> Path:
    """Write a binary DICOM SEG (PS3.3 A.51), a new series in the scan's study.

    Slices with a segment become frames that name their source slice and repeat its position; the
    patient's and the study's attributes are those of the scan, as a SEG must have them. Of an empty
    mask every slice is written as an empty frame, because a SEG needs at least one. Bound in
    memory: headers, and one bit a voxel of the frames.

    Args:
        mask: 0, or the number of a segment from 1, (X, Y, Z), in the scan's stored axes.
        sources: of the scan, see `read_sources`.
        path: the file to write.
        maker: the software and what the mask depends on.
        segments: what the mask's values mean, from 1.
        kind: of the series, see `Maker.attributes`.

    Raises:
        ValueError: if the mask has not the scan's shape or holds other values.
        UserError: if the scan's files lack what a SEG must repeat of them.
    """
    shape, most = sources.scan.values.shape, len(segments)
    if mask.shape != shape or mask.max(initial=0) > most:
        raise ValueError(f"mask {mask.shape}, highest {mask.max()}; expected: 0 to {most} in {shape}")
    planes = mask.transpose(2, 1, 0)  # a view
    frames = planes
    if (count := int(get_number(sources.first, "NumberOfFrames") or 1)) > 1:
        places = [sources.image(k)[1] or 1 for k in range(len(planes))]  # sorted along the normal before
        frames = np.zeros((count, *planes.shape[1:]), np.uint8)
        frames[np.array(places) - 1] = planes
    with sources.refused("SEG"):
        segmentation = _segmentation(frames, sources, maker, segments, kind)
        return save_object(segmentation, path)


def _segmentation(
    frames: NDArray[np.uint8], sources: Sources, maker: Maker, segments: Sequence[Segment], kind: str
) -> Segmentation:
    attributes = maker.attributes(sources.headers, kind)
    return Segmentation(
        source_images=sources.headers,
        pixel_array=frames,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(number, one, maker) for number, one in enumerate(segments, 1)],
        omit_empty_frames=bool(frames.any()),  # a SEG without frames is none
        content_label="LUNG_OPACITY",
        content_description=attributes["series_description"],
        **attributes,
    )


def _describe(number: int, one: Segment, maker: Maker) -> SegmentDescription:
    segment = SegmentDescription(
        segment_number=number,
        segment_label=one.label,
        segmented_property_category=CodedConcept(*CATEGORY),
        segmented_property_type=CodedConcept(*one.type),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=long_string(maker.algorithm),
            version=long_string(maker.version),
            family=codes.DCM.ArtificialIntelligence,
        ),
        anatomic_regions=[CodedConcept(*REGION)],
        display_color=CIELabColor.from_rgb(*one.colour),
    )
    segment.SegmentDescription = one.description
    return segment
