from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import SecondaryCaptureImageStorage

from scripts.io.dicom.derived import Maker
from scripts.io.dicom.reading import read_dicom
from scripts.io.dicom.sc import Picture, write_dicom_sc
from scripts.io.dicom.sources import read_sources
from tests.scan_fixtures import validate

Write = Callable[..., np.ndarray]
MAKER = Maker(version="1.2", depends_on="weights")
PIXELS = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
LESION = Picture(PIXELS, "Lesion 1: 2.3\N{NO-BREAK SPACE}ml", [2], axial=True)
OVERVIEW = Picture(PIXELS, "Most affected slices", [0, 4], axial=False)


def write(picture: Picture, folder: Path, number: int = 1, maker: Maker = MAKER) -> Dataset:
    path = folder / "sc.dcm"
    assert write_dicom_sc(picture, number, read_sources(read_dicom(folder / "ct")), path, maker) == path
    validate(path)
    return dcmread(path)


def test_a_picture_belongs_to_the_study_and_names_its_slices(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path / "ct")
    image = write(LESION, tmp_path)
    sources = [dcmread(file) for file in read_dicom(tmp_path / "ct").files]
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "StudyDate", "AccessionNumber"):
        assert image[keyword].value == sources[0][keyword].value
    assert (image.ImageLaterality, "Laterality" in image) == ("B", False)
    assert image.SOPClassUID == SecondaryCaptureImageStorage
    assert (image.SeriesNumber, image.ConversionType, image.BurnedInAnnotation) == (3003, "WSD", "NO")
    assert image.SeriesDescription == f"Lung opacity SC 1.2 {MAKER.day}, AI, research use"
    np.testing.assert_array_equal(image.pixel_array, PIXELS)
    assert (image.ImageComments, list(image.PatientOrientation)) == ("Lesion 1: 2.3 ml", ["L", "P"])
    (source,) = image.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == sources[2].SOPInstanceUID
    overview = write(OVERVIEW, tmp_path)
    assert [one.ReferencedSOPInstanceUID for one in overview.SourceImageSequence] == [
        sources[k].SOPInstanceUID for k in (0, 4)
    ]
    assert not overview.PatientOrientation


def test_a_frame_of_a_multi_frame_file_is_named(
    tmp_path: Path, write_series: Write, make_enhanced: Callable[..., None]
) -> None:
    stored = np.zeros((4, 20, 24), np.uint16)
    write_series(tmp_path / "ct", 1, change=lambda ds, _: make_enhanced(ds, [5.0, 0.0, 10.0, 15.0], stored))
    (source,) = write(replace(LESION, slices=[0]), tmp_path).SourceImageSequence
    assert source.ReferencedFrameNumber == 2  # the lowest of them


def test_uids_tell_pictures_of_one_series_apart_and_repeat(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path / "ct")
    one, two, again = (write(LESION, tmp_path, number) for number in (1, 2, 1))
    other = write(LESION, tmp_path, maker=replace(MAKER, depends_on="others"))
    assert one.SeriesInstanceUID == two.SeriesInstanceUID == again.SeriesInstanceUID != other.SeriesInstanceUID
    assert one.SOPInstanceUID == again.SOPInstanceUID
    assert len({one.SOPInstanceUID, two.SOPInstanceUID, other.SOPInstanceUID}) == 3
    assert [one.InstanceNumber, two.InstanceNumber] == [1, 2]


@pytest.mark.parametrize("name", ["Müller^Jörg", "Yamada^Tarou=山田^太郎"])
def test_names_of_patients_keep_their_letters(tmp_path: Path, write_series: Write, name: str) -> None:
    def change(ds: Any, _: int) -> None:
        ds.SpecificCharacterSet, ds.PatientName = "ISO_IR 192", name

    write_series(tmp_path / "ct", change=change)
    assert str(write(LESION, tmp_path).PatientName) == name


def test_pictures_of_a_lossy_scan_say_so(tmp_path: Path, write_series: Write) -> None:
    def change(ds: Any, _: int) -> None:
        ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", 12.5
        ds.LossyImageCompressionMethod = "ISO_10918_1"

    write_series(tmp_path / "ct", change=change)
    image = write(LESION, tmp_path)
    assert (image.LossyImageCompression, image.LossyImageCompressionRatio) == ("01", 12.5)
    assert image.LossyImageCompressionMethod == "ISO_10918_1"


@pytest.mark.parametrize(
    ("keyword", "values", "left"),
    [
        ("ReferringPhysicianName", ["Doe^A", "Roe^B"], "Doe^A"),
        ("PatientName", ["Doe^A", "Roe^B"], "Doe^A"),
        ("StudyDate", ["20200301", "20200302"], "20200301"),
        ("PatientID", ["7", "8"], ["7", "8"]),
    ],
)
def test_of_several_values_the_first_is_repeated_but_of_identifiers(
    tmp_path: Path, write_series: Write, keyword: str, values: list[str], left: str | list[str]
) -> None:
    write_series(tmp_path / "ct", change=lambda ds, _: setattr(ds, keyword, values))
    path = tmp_path / "sc.dcm"
    write_dicom_sc(LESION, 1, read_sources(read_dicom(tmp_path / "ct")), path, MAKER)
    assert dcmread(path)[keyword].value == left


def test_a_picture_names_whose_patient_it_is_as_the_scan_does(tmp_path: Path, write_series: Write) -> None:
    values = {"IssuerOfPatientID": "HOSPITAL", "PatientIdentityRemoved": "YES", "DeidentificationMethod": "By rule"}
    values |= {"StudyDescription": "Thorax", "PatientAge": "049Y"}
    write_series(tmp_path / "ct", change=lambda ds, _: [setattr(ds, *one) for one in values.items()])
    found = write(LESION, tmp_path)
    assert {keyword: found[keyword].value for keyword in values} == values
