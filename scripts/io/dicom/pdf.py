"""A PDF document as a DICOM object."""

from pathlib import Path

from highdicom import SOPClass
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from .derived import Maker, save_object
from .sources import Sources


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
    document = SOPClass(
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        study_instance_uid=sources.first.StudyInstanceUID,
        specific_character_set=sources.first.get("SpecificCharacterSet"),
        **attributes,
    )
    document.copy_patient_and_study_information(sources.first)
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
