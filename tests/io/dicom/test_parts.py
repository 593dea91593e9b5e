"""A DICOM series is not one acquisition: what is refused, separated, joined and left out,
in any order of the files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    BasicTextSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    HangingProtocolStorage,
    SecondaryCaptureImageStorage,
    XRayRadiationDoseSRStorage,
)

from scripts.errors import UserError
from scripts.io.dicom.reading import read_dicom
from scripts.io.dicom.series import list_series
from scripts.io.volume import Note, Scan
from tests.scan_fixtures import AXIAL, make_slice, make_stored, save, uid

Write = Callable[..., np.ndarray]
HEIGHTS = (0.0, 2.5, 5.0, 7.5, 10.0, 12.5)


def places(*heights: float) -> list[tuple[float, float, float]]:
    return [(-10.0, -20.0, height) for height in heights]


def give(**values: object) -> Callable[[Dataset, int], None]:
    """Sets attributes, each to a list with one value per slice or to one value of all."""

    def change(ds: Dataset, k: int) -> None:
        for keyword, value in values.items():
            one = value[k] if isinstance(value, tuple) else value
            setattr(ds, keyword, one) if one is not None else ds.pop(keyword, None)

    return change


def notes_of(scan: Scan) -> list[Note]:
    return [note for note in scan.notes if note.code not in ("few_slices", "small_field_of_view")]


def refusal(folder: Path, series: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read_dicom(folder, series)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def outcome(folder: Path) -> tuple[object, ...]:
    """What the reader makes of a folder: the refusal without names of files,
    or voxels and codes of notes."""
    try:
        scan = read_dicom(folder)
    except UserError as error:
        return (str(error).split(": ", 1)[1],)
    return scan.values.tobytes(), scan.affine.tobytes(), tuple(note.code for note in scan.notes), str(scan.facts)


def renamed(folder: Path, seed: int) -> Path:
    """A copy of the folder whose files bear other names in another order."""
    copy = folder.with_name(f"{folder.name}-{seed}")
    copy.mkdir()
    files = sorted(folder.iterdir())
    for file, k in zip(files, np.random.default_rng(seed).permutation(len(files)), strict=True):
        shutil.copy(file, copy / f"{k:03d}")
    return copy


OVERLAPS = {
    "second pass over part of the range": (places(0, 2.5, 5, 7.5, 6.2, 8.7, 11.2, 13.7), (1, 1, 1, 1, 2, 2, 2, 2)),
    "interleaved and evenly spaced": (places(*HEIGHTS), (1, 2, 1, 2, 1, 2)),
    "second pass at the same places": (places(*HEIGHTS[:3], *HEIGHTS[:3]), (1, 1, 1, 2, 2, 2)),
    "one inside of the other": (places(*HEIGHTS), (1, 1, 2, 2, 1, 1)),
    "one slice before the contrast agent": (places(*HEIGHTS, 6.0), (2, 2, 2, 2, 2, 2, 1)),
    "three acquisitions": (places(*HEIGHTS), (1, 2, 3, 1, 2, 3)),
    "the first without a number": (places(*HEIGHTS), (None, 2, None, 2, None, 2)),
}


@pytest.mark.parametrize("name", OVERLAPS)
def test_acquisitions_that_overlap_are_never_one_scan(name: str, tmp_path: Path, write_series: Write) -> None:
    positions, numbers = OVERLAPS[name]
    stored = write_series(tmp_path / "in", positions, change=give(AcquisitionNumber=numbers))
    message = refusal(tmp_path / "in")
    parts = list_series(tmp_path / "in")
    assert "different AcquisitionNumber" in message
    assert sorted(len(part.slices) for part in parts) == sorted(numbers.count(n) for n in set(numbers))
    for part in parts:
        count = len(part.slices)
        value = part.part.label.removeprefix("AcquisitionNumber ")
        assert f"(id {part.id}): AcquisitionNumber {value}, {count} slice" in message or len(parts) > 6
        scan = read_dicom(tmp_path / "in", part.id)
        mine = [k for k, number in enumerate(numbers) if str(number or "absent") == value]
        mine.sort(key=lambda k: positions[k][2])
        np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored[mine].astype(int) - 1024)
    assert "several of them --series 3" in refusal(tmp_path / "in", "3")
    assert {outcome(renamed(tmp_path / "in", seed)) for seed in range(3)} == {outcome(tmp_path / "in")}


@pytest.mark.parametrize("numbers", [(1, 2, 3, 4, 5, 6), (6, 5, 4, 3, 2, 1), (7, 7, 7, 7, 7, 7), (1, 1, None, 1, 1, 1)])
def test_one_acquisition_or_one_a_slice_is_a_scan(
    numbers: tuple[int, ...], tmp_path: Path, write_series: Write
) -> None:
    stored = write_series(tmp_path, places(*HEIGHTS), change=give(AcquisitionNumber=numbers))
    scan = read_dicom(tmp_path)
    np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored.astype(int) - 1024)
    assert notes_of(scan) == []


def test_acquisitions_one_above_the_other_are_noted(tmp_path: Path, write_series: Write) -> None:
    stored = write_series(tmp_path / "in", places(*HEIGHTS), change=give(AcquisitionNumber=(1, 1, 1, 2, 2, 4)))
    scan = read_dicom(tmp_path / "in")
    np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored.astype(int) - 1024)
    (note,) = notes_of(scan)
    assert (note.code, note.kind) == ("acquisitions_joined", "assumption")
    assert "3 values of AcquisitionNumber" in note.text
    assert "(1: 3, 2: 2, 4: 1 slices)" in note.text
    assert {outcome(renamed(tmp_path / "in", seed)) for seed in range(3)} == {outcome(tmp_path / "in")}


OTHERS: dict[str, tuple[object, object]] = {
    "SeriesNumber": (3, 4),
    "TemporalPositionIdentifier": (1, 2),
    "NominalPercentageOfCardiacPhase": (30.0, 70.0),
    "EchoNumbers": (1, 2),
    "ContrastBolusAgent": ("none", "agent"),
    "PatientPosition": ("HFS", "HFP"),
    "KVP": (80, 140),
    "ConvolutionKernel": ("B30f", "B70f"),
    "SliceThickness": (1.0, 5.0),
    "ImageType": (["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "AXIAL", "MIP"]),
}


@pytest.mark.parametrize("keyword", OTHERS)
def test_other_traits_that_overlap_are_separated_too(keyword: str, tmp_path: Path, write_series: Write) -> None:
    one, other = OTHERS[keyword]
    write_series(tmp_path / "in", places(*HEIGHTS), change=give(**{keyword: (one, other) * 3}))
    assert f"different {keyword}" in refusal(tmp_path / "in")
    for part in list_series(tmp_path / "in"):
        assert read_dicom(tmp_path / "in", part.id).values.shape[2] == 3
    assert {outcome(renamed(tmp_path / "in", seed)) for seed in range(2)} == {outcome(tmp_path / "in")}


def test_lossy_slices_of_a_scan_are_no_other_trait(tmp_path: Path, write_series: Write) -> None:
    kinds = (["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "PRIMARY", "AXIAL"])
    write_series(tmp_path, places(*HEIGHTS), change=give(ImageType=kinds * 3, LossyImageCompression=("00", "01") * 3))
    assert [note.code for note in notes_of(read_dicom(tmp_path))] == ["lossy_compression"]


LONGER = tuple(2.5 * k for k in range(10))


@pytest.mark.parametrize("silent", [(3,), (3, 4), (0, 9), (0, 3, 6, 9), (1, 2, 5, 6, 7, 8)], ids=str)
@pytest.mark.parametrize("keyword", ["AcquisitionNumber", "KVP", "SliceThickness", "PatientPosition", "SeriesNumber"])
def test_slices_that_leave_an_attribute_out_fill_the_gaps_of_the_others(
    keyword: str, silent: tuple[int, ...], tmp_path: Path, write_series: Write
) -> None:
    said = "HFS" if keyword == "PatientPosition" else 3
    change = give(**{keyword: tuple(None if k in silent else said for k in range(10))})
    stored = write_series(tmp_path, places(*LONGER), change=change)
    scan = read_dicom(tmp_path)
    np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored.astype(int) - 1024)
    assert notes_of(scan) == []


@pytest.mark.parametrize("height", [6.0, 7.5])
def test_a_silent_slice_that_fills_no_gap_is_another_pass(height: float, tmp_path: Path, write_series: Write) -> None:
    change = give(AcquisitionNumber=(*[2] * 10, None))
    write_series(tmp_path, places(*LONGER, height), change=change)
    assert "different AcquisitionNumber" in refusal(tmp_path)


@pytest.mark.parametrize("marked", [(3,), (0, 4, 5), (2, 3, 4, 7)], ids=str)
def test_image_types_of_single_slices_do_not_part_a_scan(
    marked: tuple[int, ...], tmp_path: Path, write_series: Write
) -> None:
    axial = ["ORIGINAL", "PRIMARY", "AXIAL"]
    kinds = tuple([*axial, "CT_SOM5 SPI"] if k in marked else axial for k in range(10))
    stored = write_series(tmp_path, places(*LONGER), change=give(ImageType=kinds))
    scan = read_dicom(tmp_path)
    np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored.astype(int) - 1024)
    assert {note.code for note in notes_of(scan)} <= {"acquisitions_joined"}


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("SliceThickness", ("1.25", "1.2500001", "1.249")),
        ("SliceThickness", ("0.75", "0.7499999", "0.750")),
        ("KVP", ("120", "119.95", "120.0")),
        ("AcquisitionNumber", ("1", "01", " 1")),
        ("ConvolutionKernel", (["Br40f", "3"],) * 3),
    ],
)
def test_numbers_that_differ_by_their_rounding_are_one(
    keyword: str, values: tuple[object, ...], tmp_path: Path, write_series: Write
) -> None:
    write_series(tmp_path, places(*HEIGHTS), change=give(**{keyword: values * 2}))
    assert notes_of(read_dicom(tmp_path)) == []


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "StudyInstanceUID", "PatientID"])
@pytest.mark.parametrize("values", [("1.2.1",) * 3 + ("1.2.2",) * 3, tuple(f"1.2.{k}" for k in range(6))])
def test_places_that_cannot_be_compared_are_refused(
    keyword: str, values: tuple[str, ...], tmp_path: Path, write_series: Write
) -> None:
    write_series(tmp_path / "in", places(*HEIGHTS), change=give(**{keyword: values}))
    message = refusal(tmp_path / "in")
    assert f"{len(set(values))} parts that are no one volume (different {keyword})" in message
    assert len(message.split(": ", 1)[1]) < 500
    assert "1.2." not in message.split(": ", 1)[1]
    assert {outcome(renamed(tmp_path / "in", seed)) for seed in range(2)} == {outcome(tmp_path / "in")}


def test_enhanced_frames_of_two_acquisitions_are_separated_and_get_their_seg(
    tmp_path: Path, write_series: Write, make_enhanced: Callable[..., None]
) -> None:
    from scripts.io.dicom.derived import Maker
    from scripts.io.dicom.seg import write_dicom_seg
    from scripts.io.dicom.sources import read_sources

    stored = make_stored(6)

    def change(ds: Dataset, _: int) -> None:
        make_enhanced(ds, [0.0, 1.0, 5.0, 6.0, 10.0, 11.0], stored)
        for k, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
            content = Dataset()
            content.FrameAcquisitionNumber = 1 + k % 2
            frame.FrameContentSequence = [content]

    write_series(tmp_path / "in", 1, change=change)
    assert "different AcquisitionNumber" in refusal(tmp_path / "in")
    second = list_series(tmp_path / "in")[1]
    scan = read_dicom(tmp_path / "in", second.id)
    np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored[1::2].astype(int) - 1024)
    mask = np.zeros(scan.values.shape, np.uint8)
    mask[3, 4, 1] = 1
    seg = dcmread(write_dicom_seg(mask, read_sources(scan), tmp_path / "s.dcm", Maker("a", "1")))
    (frame,) = seg.PerFrameFunctionalGroupsSequence
    assert frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber == 4
    assert float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) == 6.0


def test_kinds_of_frames_are_those_of_each_frame(
    tmp_path: Path, write_series: Write, make_enhanced: Callable[..., None]
) -> None:
    stored = make_stored(6)

    def change(ds: Dataset, _: int) -> None:
        make_enhanced(ds, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], stored)
        ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "MIXED"]
        for k, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
            kind = Dataset()
            kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "MAXIMUM" if k % 2 else "NONE"]
            frame.CTImageFrameTypeSequence = [kind]

    write_series(tmp_path / "in", 1, change=change)
    assert "different ImageType" in refusal(tmp_path / "in")
    assert [len(part.slices) for part in list_series(tmp_path / "in")] == [3, 3]


def stray(sop_class: str, series: str | None) -> Dataset:
    """An object that is no CT image; without a series as hanging protocols are."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = sop_class, uid("stray", sop_class), "CT"
    if series is not None:
        ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study"), uid(series)
    return ds


def screen(sop_class: str = SecondaryCaptureImageStorage, **attributes: object) -> Dataset:
    """A picture of a console in the series of the CT."""
    ds = make_slice(np.zeros((64, 80), np.uint16), (0, 0, 0), 99)
    ds.SOPClassUID, ds.SOPInstanceUID, ds.ImageType = sop_class, uid("screen"), ["DERIVED", "SECONDARY"]
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(ds, keyword)
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def colour(sop_class: str) -> Dataset:
    ds = screen(sop_class, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.PixelData = bytes(64 * 80 * 3)
    return ds


CT = "1.2.840.10008.5.1.4.1.1.2"
STRAYS: dict[str, tuple[Callable[[], Dataset], str]] = {
    "colour capture": (lambda: colour(SecondaryCaptureImageStorage), "Secondary Capture Image Storage"),
    "grey capture": (screen, "Secondary Capture Image Storage"),
    "colour capture as CT": (lambda: colour(CT), "colour or screen image"),
    "grey dose page as CT": (lambda: screen(CT), "colour or screen image"),
    "report": (lambda: stray(BasicTextSRStorage, "a"), "Basic Text SR Storage"),
    "dose report": (lambda: stray(XRayRadiationDoseSRStorage, "a"), "X-Ray Radiation Dose SR Storage"),
    "presentation state": (lambda: stray(GrayscaleSoftcopyPresentationStateStorage, "a"), "Presentation State"),
    "hanging protocol": (lambda: stray(HangingProtocolStorage, None), "Hanging Protocol Storage"),
}


@pytest.mark.parametrize("name", STRAYS)
@pytest.mark.parametrize("file", ["000", "zzz"])
def test_stray_objects_are_left_out_and_named(name: str, file: str, tmp_path: Path, write_series: Write) -> None:
    make, kind = STRAYS[name]
    stored = write_series(tmp_path, places(*HEIGHTS))
    save(make(), tmp_path / file)
    for series in (None, "3"):
        scan = read_dicom(tmp_path, series)
        np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored.astype(int) - 1024)
        (note,) = notes_of(scan)
        assert (note.code, note.kind) == ("objects_left_out", "repair")
        assert note.text.startswith("1 object")
        assert f"(1 {kind}" in note.text or kind in note.text
        assert f": {file}." in note.text


def test_many_strays_are_counted(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path, places(*HEIGHTS))
    for k in range(7):
        ds = stray(BasicTextSRStorage, "a")
        ds.SOPInstanceUID = uid("report", k)
        save(ds, tmp_path / f"r{k}")
    (note,) = notes_of(read_dicom(tmp_path))
    assert note.text.startswith("7 objects of the series")
    assert note.text.endswith("(7 Basic Text SR Storage): r0, r1, r2 and 4 more.")


def test_what_the_reader_says_of_the_whole_series_depends_on_all_slices(tmp_path: Path, write_series: Write) -> None:
    change = give(RescaleType=(None, "US", None, None, None, None), Modality=(None, "CT", "CT", None, "CT", "CT"))
    write_series(tmp_path / "in", places(*HEIGHTS), change=change)
    assert [note.code for note in notes_of(read_dicom(tmp_path / "in"))] == ["not_hu"]
    assert {outcome(renamed(tmp_path / "in", seed)) for seed in range(3)} == {outcome(tmp_path / "in")}


def test_slices_that_share_an_identity_are_read_in_the_order_of_their_places(
    tmp_path: Path, write_series: Write
) -> None:
    noisy = tuple([1, 1e-4 * k, 0, -1e-4 * k, 1, 0] for k in range(6))
    change = give(SOPInstanceUID="1.2.3", ImageOrientationPatient=noisy)
    write_series(tmp_path / "in", places(*HEIGHTS), change=change)
    assert {outcome(renamed(tmp_path / "in", seed)) for seed in range(3)} == {outcome(tmp_path / "in")}


def test_slices_of_which_some_are_not_rescaled_are_refused(tmp_path: Path, write_series: Write) -> None:
    def change(ds: Dataset, k: int) -> None:
        if k == 2:
            del ds.RescaleSlope, ds.RescaleIntercept

    write_series(tmp_path, places(*HEIGHTS), change=change)
    odd = next(file.name for file in tmp_path.iterdir() if "RescaleSlope" not in dcmread(file))
    assert f"{odd}: no RescaleSlope" in refusal(tmp_path)


def per_slice(ds: Dataset, k: int) -> None:
    ds.SeriesInstanceUID = uid("own", k)


def test_slices_with_a_series_each_are_joined_where_all_else_agrees(tmp_path: Path, write_series: Write) -> None:
    stored = write_series(tmp_path / "in", places(*HEIGHTS), change=per_slice)
    scan = read_dicom(tmp_path / "in")
    np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored.astype(int) - 1024)
    (note,) = notes_of(scan)
    assert (note.code, note.kind) == ("series_joined", "assumption")
    assert note.text.startswith("6 CT series of one slice each")
    assert {outcome(renamed(tmp_path / "in", seed)) for seed in range(3)} == {outcome(tmp_path / "in")}


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("FrameOfReferenceUID", tuple(f"1.2.{k}" for k in range(6))),
        ("SeriesNumber", None),
        ("PatientID", tuple("abcabc")),
        ("ImageOrientationPatient", (list(AXIAL), [0, 1, 0, -1, 0, 0]) * 3),
    ],
)
def test_slices_with_a_series_each_that_differ_are_refused_in_a_bounded_line(
    keyword: str, value: object, tmp_path: Path, write_series: Write
) -> None:
    def change(ds: Dataset, k: int) -> None:
        per_slice(ds, k)
        give(**{keyword: value})(ds, k)

    write_series(tmp_path, places(*HEIGHTS), change=change)
    message = refusal(tmp_path).split(": ", 1)[1]
    assert "6 CT series, each of one slice" in message
    assert len(message) < 500


def test_many_series_are_listed_in_a_bounded_line(tmp_path: Path, write_series: Write) -> None:
    for number in range(20):
        write_series(tmp_path, places(0, 1), series=f"s{number}", change=give(SeriesNumber=number))
    message = refusal(tmp_path)
    assert "20 CT series" in message
    assert "and 14 more" in message


@pytest.mark.parametrize("syntax", ["1.2.840.113619.5.2", "1.3.6.1.4.1.1.1"])
def test_private_transfer_syntax_is_named(syntax: str, tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path)
    for file in tmp_path.iterdir():
        ds = dcmread(file)
        ds.file_meta.TransferSyntaxUID = syntax
        ds.save_as(file, implicit_vr=False, little_endian=True)
    message = refusal(tmp_path)
    assert f"private transfer syntax {syntax}" in message
    assert "gdcmconv --raw" in message
    assert "damaged" not in message
    assert "truncated" not in message


def test_private_transfer_syntax_of_another_series_is_no_hindrance(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path / "p", 2, series="p", change=give(Modality="MR"))
    for file in (tmp_path / "p").iterdir():
        ds = dcmread(file)
        ds.file_meta.TransferSyntaxUID = "1.2.840.113619.5.2"
        ds.save_as(file, implicit_vr=False, little_endian=True)
    write_series(tmp_path, 5)
    assert read_dicom(tmp_path).values.shape[2] == 5
