"""A picture for people as a DICOM Secondary Capture image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from highdicom.sc import SCImage
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from .derived import Maker, plain_text, save_object
from .header import get_text
from .sources import Sources

_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


@dataclass(frozen=True)
class Picture:
    """What a secondary capture image shows.

    Attributes:
        pixels: RGB, (rows, columns, 3) uint8, with nothing that names a person.
        caption: what is shown.
        slices: the scan's stored slices that are shown.
        axial: whether columns run to the patient's left and rows to posterior.
    """

    pixels: NDArray[np.uint8]
    caption: str
    slices: Sequence[int]
    axial: bool


def write_dicom_sc(picture: Picture, number: int, sources: Sources, path: Path, maker: Maker) -> Path:
    """Write a Secondary Capture image (PS3.3 A.8.1); all of a run are one series of the study.

    A single-frame object for each picture, uncompressed, because every archive and viewer takes
    these; frames of a multi-frame one would need one size.

    Args:
        picture: what to write.
        number: of the image in its series, from 1.
        sources: of the scan, see `read_sources`.
        path: the file to write.
        maker: the software and what the picture depends on.

    Raises:
        UserError: if the scan's files lack what the image must repeat of them.
    """
    with sources.refused("SC"):
        image = SCImage.from_ref_dataset(
            ref_dataset=sources.first,
            pixel_array=picture.pixels,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "P"),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **maker.attributes(sources.headers, "SC", number),
        )
        image.copy_patient_and_study_information(sources.first)  # highdicom repeats the names alone
        if not picture.axial:
            image["PatientOrientation"].value = None
        image.ImageLaterality = "B"  # both lungs
        image.ConversionType = "WSD"  # made by a workstation
        image.BurnedInAnnotation = "NO"
        image.ImageComments = plain_text(picture.caption)
        image.SourceImageSequence = [_source(sources, k) for k in picture.slices]
        if get_text(sources.first, "LossyImageCompression") == "01":  # which pixels keep (PS3.3 C.7.6.1.1.5)
            for keyword in filter(sources.first.__contains__, _LOSSY):
                image[keyword] = sources.first[keyword]
        return save_object(image, path)


def _source(sources: Sources, k: int) -> Dataset:
    """Refer to a stored slice (PS3.3 table 10-3)."""
    instance, frame = sources.image(k)
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sources.first.SOPClassUID, instance
    if frame is not None:
        item.ReferencedFrameNumber = frame
    item.PurposeOfReferenceCodeSequence = [CodedConcept(*codes.DCM.SourceImageForImageProcessingOperation)]
    return item
