from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import EncapsulatedPDFStorage

from scripts.errors import UserError
from scripts.io.dicom.derived import Maker
from scripts.io.dicom.pdf import write_dicom_pdf
from scripts.io.dicom.reading import read_dicom
from scripts.io.dicom.sources import read_sources
from tests.scan_fixtures import validate

Write = Callable[..., np.ndarray]
MAKER = Maker(version="1.2", depends_on="weights")


def write(folder: Path, content: bytes = b"%PDF-1.4 odd") -> Dataset:
    (folder / "report.pdf").write_bytes(content)
    path = folder / "pdf.dcm"
    sources = read_sources(read_dicom(folder / "ct"))
    assert write_dicom_pdf(folder / "report.pdf", "Opacities", sources, path, MAKER) == path
    validate(path)
    return dcmread(path)


@pytest.mark.parametrize("content", [b"%PDF-1.4 odd", b"%PDF-1.4 even"])
def test_the_document_is_held_byte_for_byte(tmp_path: Path, write_series: Write, content: bytes) -> None:
    write_series(tmp_path / "ct")
    found = write(tmp_path, content)
    assert found.EncapsulatedDocument[: found.EncapsulatedDocumentLength] == content
    assert len(found.EncapsulatedDocument) in (len(content), len(content) + 1)
    assert len(found.EncapsulatedDocument) % 2 == 0


def test_what_the_iod_requires(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path / "ct")
    found = write(tmp_path)
    source = dcmread(read_dicom(tmp_path / "ct").files[0])
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "StudyDate", "StudyID"):
        assert found[keyword].value == source[keyword].value
    assert found.SOPClassUID == found.file_meta.MediaStorageSOPClassUID == EncapsulatedPDFStorage
    assert (found.Modality, found.MIMETypeOfEncapsulatedDocument) == ("DOC", "application/pdf")
    assert (found.BurnedInAnnotation, found.ConversionType, found.DocumentTitle) == ("YES", "WSD", "Opacities")
    assert (found.SeriesNumber, found.InstanceNumber) == (4003, 1)
    assert found.SeriesDescription == f"Lung opacity PDF 1.2 {MAKER.day}, AI, research use"
    assert found.ConceptNameCodeSequence[0].CodeValue == "126000"
    assert len(found.SourceInstanceSequence) == 6
    assert found.SourceInstanceSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    again = write(tmp_path)
    assert (again.SOPInstanceUID, again.SeriesInstanceUID) == (found.SOPInstanceUID, found.SeriesInstanceUID)


def test_absent_patient_is_written_empty(tmp_path: Path, write_series: Write) -> None:
    absent = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID")

    def change(ds: Any, _: int) -> None:
        for keyword in absent:
            delattr(ds, keyword)

    write_series(tmp_path / "ct", change=change)
    found = write(tmp_path)
    assert [found[keyword].value for keyword in absent if found[keyword].value] == []


def test_what_must_be_repeated_is_named(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path / "ct", change=lambda ds, _: delattr(ds, "StudyInstanceUID"))
    with pytest.raises(UserError, match="StudyInstanceUID missing"):
        write(tmp_path)


def test_a_document_names_whose_patient_it_is_as_the_scan_does(tmp_path: Path, write_series: Write) -> None:
    values = {"IssuerOfPatientID": "HOSPITAL", "PatientIdentityRemoved": "YES", "DeidentificationMethod": "By rule"}
    values |= {"StudyDescription": "Thorax", "PatientAge": "049Y"}
    write_series(tmp_path / "ct", change=lambda ds, _: [setattr(ds, *one) for one in values.items()])
    found = write(tmp_path)
    assert {keyword: found[keyword].value for keyword in values} == values
