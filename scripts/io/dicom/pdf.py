"""A PDF document as a DICOM object."""

from pathlib import Path
from typing import Any

from highdicom import SOPClass
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from .derived import Maker, save_object
from .sources import Sources

_REPEATED = {
    "study_instance_uid": "StudyInstanceUID",
    "study_id": "StudyID",
    "study_date": "StudyDate",
    "study_time": "StudyTime",
    "accession_number": "AccessionNumber",
    "referring_physician_name": "ReferringPhysicianName",
    "patient_id": "PatientID",
    "patient_name": "PatientName",
    "patient_birth_date": "PatientBirthDate",
    "patient_sex": "PatientSex",
    "specific_character_set": "SpecificCharacterSet",
}
"""Attributes of the scan by the names of highdicom's arguments."""


def write_dicom_pdf(pdf: Path, title: str, sources: Sources, path: Path, maker: Maker) -> Path:
    """Write an Encapsulated PDF (PS3.3 A.45.1), a new series in the scan's study.

    Args:
        pdf: the document, which may name the case.
        title: of the document; ASCII.
        sources: of the scan, see `read_sources`.
        path: the file to write.
        maker: the software and what the document depends on.

    Raises:
        UserError: if the scan's files lack what the object must repeat of them.
    """
    with sources.refused("PDF"):
        document = _document(pdf.read_bytes(), title, sources, maker)
        return save_object(document, path)


def _document(content: bytes, title: str, sources: Sources, maker: Maker) -> Dataset:
    attributes = maker.attributes(sources.headers, "PDF")
    repeated: dict[str, Any] = {name: sources.first.get(keyword) for name, keyword in _REPEATED.items()}
    document = SOPClass(
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **repeated,
        **attributes,
    )
    document.ConversionType = "WSD"  # made by a workstation
    document.AcquisitionDateTime = ""
    document.BurnedInAnnotation = "YES"  # the case's name, which may be a person's
    document.SourceInstanceSequence = [_reference(header) for header in sources.headers]
    document.DocumentTitle = title
    document.ConceptNameCodeSequence = [CodedConcept(*codes.DCM.ImagingMeasurementReport)]  # as of the SR
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document.EncapsulatedDocumentLength = len(content)
    document.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    return document


def _reference(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return item
