from __future__ import annotations

import logging
import struct
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from pydicom import DataElement, Dataset, dcmread
from pydicom.tag import Tag
from pydicom.uid import SegmentationStorage

from scripts.errors import UserError
from scripts.io.dicom.derived import Maker
from scripts.io.dicom.reading import read_dicom
from scripts.io.dicom.seg import write_dicom_seg
from scripts.io.dicom.sources import read_sources
from scripts.io.volume import Scan

MAKER = Maker("ResUNet", "1.2", "weights and settings", day=date(2026, 11, 27))


def make_mask(scan: Scan, *slices: int, seed: int = 5) -> np.ndarray:
    """Random voxels, without symmetry, in the named slices."""
    mask = np.zeros(scan.values.shape, np.uint8)
    rng = np.random.default_rng(seed)
    for z in slices:
        mask[:, :, z] = rng.random(mask.shape[:2]) < 0.3
    return mask


def frames_of(seg: Dataset) -> np.ndarray:
    """(frames, rows, columns); bits are packed from the least significant one,
    frames without gaps (PS3.5 8.1.1)."""
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    count = int(seg.NumberOfFrames)
    return bits[: count * seg.Rows * seg.Columns].reshape(count, seg.Rows, seg.Columns)


def source_of(item: Dataset) -> Dataset:
    return item.DerivationImageSequence[0].SourceImageSequence[0]


def lay_on_sources(seg: Dataset, scan: Scan) -> np.ndarray:
    """The mask (X, Y, Z) that a viewer shows: each frame on the slice that it names,
    at the place of both."""
    sources = {dcmread(file).SOPInstanceUID: (z, dcmread(file)) for z, file in enumerate(scan.files)}
    shared = seg.SharedFunctionalGroupsSequence[0]
    mask = np.zeros(scan.values.shape, np.uint8)
    for frame, item in zip(frames_of(seg), seg.PerFrameFunctionalGroupsSequence, strict=True):
        z, source = sources[source_of(item).ReferencedSOPInstanceUID]
        place = item.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(place, source.ImagePositionPatient, atol=1e-6)
        orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        np.testing.assert_allclose(orientation, source.ImageOrientationPatient, atol=1e-3)
        np.testing.assert_allclose(shared.PixelMeasuresSequence[0].PixelSpacing, source.PixelSpacing, atol=1e-9)
        world = scan.affine @ [0, 0, z, 1]
        np.testing.assert_allclose(place, [-world[0], -world[1], world[2]], atol=1e-4)
        mask[:, :, z] = frame.T
    return mask


def write(mask: np.ndarray, scan: Scan, path: Path) -> Dataset:
    assert write_dicom_seg(mask, read_sources(scan), path, MAKER) == path
    return dcmread(path)


class TestSegmentation:
    @pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0.96, 0.28, 0.0, -0.224, 0.768, 0.6)])
    def test_frames_lie_on_their_sources(self, tmp_path, write_series, orientation):
        normal = np.cross(orientation[:3], orientation[3:])
        positions = (np.array([10.0, 20.0, 300.0]) - 2.5 * np.arange(6)[:, None] * normal).round(6).tolist()

        def change(ds: Dataset, k: int) -> None:
            ds.ImageOrientationPatient = list(map(float, orientation))

        write_series(tmp_path / "ct", positions, change=change)
        scan = read_dicom(tmp_path / "ct")
        mask = make_mask(scan, 1, 2, 4)
        seg = write(mask, scan, tmp_path / "out" / "infection_seg.dcm")
        assert seg.NumberOfFrames == 3
        np.testing.assert_array_equal(lay_on_sources(seg, scan), mask)
        assert [file.name for file in (tmp_path / "out").iterdir()] == ["infection_seg.dcm"]

    def test_frames_that_are_no_multiple_of_eight_pixels(self, tmp_path, write_series):
        write_series(tmp_path / "ct", stored=np.zeros((6, 17, 19), np.uint16))
        scan = read_dicom(tmp_path / "ct")
        mask = make_mask(scan, 0, 3, 5)
        np.testing.assert_array_equal(lay_on_sources(write(mask, scan, tmp_path / "s.dcm"), scan), mask)

    def test_what_it_says(self, tmp_path, write_series):
        write_series(tmp_path / "ct")
        scan = read_dicom(tmp_path / "ct")
        source = dcmread(scan.files[0])
        seg = write(make_mask(scan, 2), scan, tmp_path / "s.dcm")
        assert seg.SOPClassUID == SegmentationStorage
        assert (seg.Modality, seg.SegmentationType, seg.SeriesDescription) == (
            "SEG",
            "BINARY",
            "Lung opacity SEG 1.2 2026-11-27, AI, research use",
        )
        for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName", "StudyDate"):
            assert seg[keyword].value == source[keyword].value
        assert seg.SeriesInstanceUID != source.SeriesInstanceUID
        assert seg.SeriesNumber == 1003
        assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
        assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 6
        (segment,) = seg.SegmentSequence
        assert (segment.SegmentLabel, segment.SegmentAlgorithmType) == ("lung opacity, AI", "AUTOMATIC")
        assert "COVID-19" in segment.SegmentDescription
        assert segment.SegmentAlgorithmName == "ResUNet"
        category, kind = segment.SegmentedPropertyCategoryCodeSequence[0], segment.SegmentedPropertyTypeCodeSequence[0]
        assert (category.CodeValue, category.CodingSchemeDesignator) == ("49755003", "SCT")
        assert (kind.CodeValue, kind.CodeMeaning) == ("409774005", "Inflammation")
        assert segment.AnatomicRegionSequence[0].CodeValue == "39607008"
        measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        assert (float(measures.SliceThickness), float(measures.SpacingBetweenSlices)) == (2.5, 2.5)

    def test_same_mask_gives_the_same_file_but_for_dates(self, tmp_path, write_series):
        write_series(tmp_path / "ct")
        scan = read_dicom(tmp_path / "ct")
        mask = make_mask(scan, 1, 3)
        one, other = (write(mask, scan, tmp_path / name) for name in ("a.dcm", "b.dcm"))
        free = {"DimensionOrganizationUID"}
        free |= {"InstanceCreationDate", "InstanceCreationTime", "ContentDate", "ContentTime", "ContributionDateTime"}

        def fixed(seg: Dataset) -> list[tuple[object, object]]:
            return [(e.tag, e.value) for e in seg.iterall() if e.VR != "SQ" and not free & {e.keyword}]

        assert fixed(one) == fixed(other)

    def test_uids_are_those_of_series_weights_and_settings(self, tmp_path, write_series):
        for series in "ab":
            write_series(tmp_path / series, 3, series=series)
        scan, other = (read_dicom(tmp_path / series) for series in "ab")
        makers = [MAKER, replace(MAKER, depends_on="others"), replace(MAKER, version="2"), MAKER]
        uids = []
        for image, maker in zip([scan, scan, scan, other], makers, strict=True):
            seg = dcmread(write_dicom_seg(make_mask(image, 1), read_sources(image), tmp_path / "s.dcm", maker))
            assert seg.file_meta.MediaStorageSOPInstanceUID == seg.SOPInstanceUID
            uids += [seg.SOPInstanceUID, seg.SeriesInstanceUID]
        assert len(set(uids)) == 8
        again = dcmread(write_dicom_seg(make_mask(scan, 2), read_sources(scan), tmp_path / "s.dcm", MAKER))
        assert [again.SOPInstanceUID, again.SeriesInstanceUID] == uids[:2]

    def test_empty_mask_is_a_valid_seg_of_empty_frames(self, tmp_path, write_series, caplog):
        write_series(tmp_path / "ct")
        scan = read_dicom(tmp_path / "ct")
        seg = write(make_mask(scan), scan, tmp_path / "s.dcm")
        assert seg.NumberOfFrames == 6
        assert not lay_on_sources(seg, scan).any()
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    def test_series_with_a_duplicate_and_a_gap(self, tmp_path, write_series):
        heights = [0, 2.5, 5, 12.5, 15, 17.5]
        write_series(tmp_path / "ct", [(-10.0, -20.0, height) for height in heights])
        (tmp_path / "ct" / "twin").write_bytes((tmp_path / "ct" / "a000").read_bytes())
        scan = read_dicom(tmp_path / "ct")
        assert {note.code for note in scan.notes} >= {"duplicates_dropped", "missing_slices"}
        mask = make_mask(scan, 1, 2, 3, 5)
        seg = write(mask, scan, tmp_path / "s.dcm")
        assert "SpacingBetweenSlices" not in seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        places = [
            float(i.PlanePositionSequence[0].ImagePositionPatient[2]) for i in seg.PerFrameFunctionalGroupsSequence
        ]
        assert sorted(places) == [2.5, 5, 12.5, 17.5]
        sources = {dcmread(file).SOPInstanceUID: z for z, file in enumerate(scan.files)}
        for frame, item in zip(frames_of(seg), seg.PerFrameFunctionalGroupsSequence, strict=True):
            z = sources[source_of(item).ReferencedSOPInstanceUID]
            np.testing.assert_array_equal(frame.T, mask[:, :, z])

    def test_tilted_gantry_and_jitter_of_orientations(self, tmp_path, write_series):
        def change(ds: Dataset, k: int) -> None:
            ds.ImageOrientationPatient = [1, 1e-7 * k, 0, 0, 0.965926, -0.258819]
            ds.SpacingBetweenSlices = 99

        write_series(tmp_path / "ct", change=change)
        scan = read_dicom(tmp_path / "ct")
        mask = make_mask(scan, 0, 1, 5)
        seg = write(mask, scan, tmp_path / "s.dcm")
        np.testing.assert_array_equal(lay_on_sources(seg, scan), mask)
        measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        assert measures.get("SpacingBetweenSlices") != 99

    def test_one_slice(self, tmp_path, write_series):
        write_series(tmp_path / "ct", 1)
        scan = read_dicom(tmp_path / "ct")
        mask = make_mask(scan, 0)
        np.testing.assert_array_equal(lay_on_sources(write(mask, scan, tmp_path / "s.dcm"), scan), mask)

    def test_long_or_odd_words_are_made_to_fit(self, tmp_path, write_series):
        write_series(tmp_path / "ct", 2)
        scan = read_dicom(tmp_path / "ct")
        write_dicom_seg(make_mask(scan, 1), read_sources(scan), tmp_path / "s.dcm", Maker("a\\b", "line\nline " * 20))
        seg = dcmread(tmp_path / "s.dcm")
        assert seg.ManufacturerModelName == "a/b"
        assert (len(seg.SoftwareVersions), seg.SeriesDescription.count("\n")) == (64, 0)

    def test_enhanced_multi_frame(self, tmp_path, write_series, make_enhanced):
        heights = [5.0, 0.0, 10.0, 15.0]
        stored = np.zeros((4, 20, 24), np.uint16)
        write_series(tmp_path / "ct", 1, change=lambda ds, k: make_enhanced(ds, heights, stored))
        scan = read_dicom(tmp_path / "ct")
        mask = make_mask(scan, 0, 2)
        seg = write(mask, scan, tmp_path / "s.dcm")
        assert seg.NumberOfFrames == 2
        for frame, item in zip(frames_of(seg), seg.PerFrameFunctionalGroupsSequence, strict=True):
            height = float(item.PlanePositionSequence[0].ImagePositionPatient[2])
            assert heights[source_of(item).ReferencedFrameNumber - 1] == height
            np.testing.assert_array_equal(frame.T, mask[:, :, round(height / 5)])

    def test_what_each_frame_says_is_shared(self, tmp_path, write_series, make_enhanced):
        stored = np.zeros((4, 20, 24), np.uint16)

        def change(ds: Dataset, k: int) -> None:
            make_enhanced(ds, [0.0, 5.0, 10.0, 15.0], stored)
            (shared,) = ds.SharedFunctionalGroupsSequence
            for frame in ds.PerFrameFunctionalGroupsSequence:
                frame.update(shared)
            del ds.SharedFunctionalGroupsSequence

        write_series(tmp_path / "ct", 1, change=change)
        scan = read_dicom(tmp_path / "ct")
        mask = make_mask(scan, 1)
        seg = write(mask, scan, tmp_path / "s.dcm")
        (shared,) = seg.SharedFunctionalGroupsSequence
        assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.8, 0.7]
        assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
        assert source_of(seg.PerFrameFunctionalGroupsSequence[0]).ReferencedFrameNumber == 2
        np.testing.assert_array_equal(frames_of(seg)[0].T, mask[:, :, 1])


class TestIncompleteHeaders:
    @pytest.mark.parametrize("frames", [1, 4])
    def test_no_thickness_is_the_step(self, tmp_path, write_series, make_enhanced, frames):
        def change(ds: Dataset, k: int) -> None:
            ds.SliceThickness = 0
            if frames > 1:
                make_enhanced(ds, [0.0, 2.5, 5.0, 7.5], np.zeros((4, 20, 24), np.uint16))

        write_series(tmp_path / "ct", 1 if frames > 1 else 4, change=change)
        scan = read_dicom(tmp_path / "ct")
        seg = write(make_mask(scan, 1), scan, tmp_path / "s.dcm")
        assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 2.5

    def test_absent_patient_is_written_empty(self, tmp_path, write_series):
        def change(ds: Dataset, k: int) -> None:
            for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
                delattr(ds, keyword)
            for keyword in ("StudyDate", "StudyTime", "SliceThickness", "Modality", "SeriesNumber"):
                delattr(ds, keyword)

        write_series(tmp_path / "ct", change=change)
        scan = read_dicom(tmp_path / "ct")
        mask = make_mask(scan, 1)
        seg = write(mask, scan, tmp_path / "s.dcm")
        np.testing.assert_array_equal(lay_on_sources(seg, scan), mask)
        assert not seg.PatientID
        assert float(seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness) == 2.5

    @pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "PixelSpacing", "StudyInstanceUID"])
    def test_what_must_be_repeated_is_named(self, tmp_path, write_series, keyword):
        write_series(tmp_path / "ct", change=lambda ds, k: delattr(ds, keyword))
        scan = read_dicom(tmp_path / "ct")
        self.refuse(scan, tmp_path, keyword)

    def test_what_highdicom_refuses_is_no_traceback(self, tmp_path, write_series):
        write_series(tmp_path / "ct")
        scan = read_dicom(tmp_path / "ct")
        stray = dcmread(scan.files[0])
        stray.SeriesInstanceUID = "1.2.3"  # the file changed since
        stray.save_as(scan.files[0])
        self.refuse(scan, tmp_path, "no DICOM object can refer")

    @pytest.mark.filterwarnings("ignore:Invalid value for VR")
    @pytest.mark.parametrize(
        ("keyword", "value"),
        [
            ("PatientSex", "W"),
            *[("PatientBirthDate", value) for value in ("unknown", "00000000", "19701300", "1970.01.01")],
            *[("StudyDate", value) for value in ("2020", "19000001", "20210229")],
            *[("StudyTime", value) for value in ("noon", "123", "250000", "999999")],
        ],
    )
    def test_invalid_values_that_may_be_empty_are_left_out(self, tmp_path, write_series, keyword, value):
        def change(ds: Dataset, k: int) -> None:
            ds[keyword]._value = value

        write_series(tmp_path / "ct", change=change)
        scan = read_dicom(tmp_path / "ct")
        assert not write(make_mask(scan, 1), scan, tmp_path / "s.dcm")[keyword].value

    @pytest.mark.parametrize("keyword", ["StudyTime", "PatientName", "RescaleType", "ContentTime"])
    @pytest.mark.parametrize("text", ["--", "12345678"], ids=["unreadable", "another type"])
    def test_damaged_values_that_may_be_empty_are_left_out(self, tmp_path, write_series, keyword, text):
        tag = Tag(keyword)

        def change(ds: Dataset, k: int) -> None:
            ds[tag] = DataElement(tag, "SH", text)

        write_series(tmp_path / "ct", change=change)
        head = struct.pack("<HH", tag.group, tag.element)
        for file in (tmp_path / "ct").iterdir():
            content = file.read_bytes()
            assert content.count(head + b"SH") == 1
            file.write_bytes(content.replace(head + b"SH", head + b"FD"))  # eight bytes a number
        scan = read_dicom(tmp_path / "ct")
        mask = make_mask(scan, 1)
        seg = write(mask, scan, tmp_path / "s.dcm")
        np.testing.assert_array_equal(lay_on_sources(seg, scan), mask)
        if keyword in ("StudyTime", "PatientName"):
            assert not seg[keyword].value

    def test_files_that_are_gone(self, tmp_path, write_series):
        write_series(tmp_path / "ct")
        scan = read_dicom(tmp_path / "ct")
        scan.files[0].unlink()
        self.refuse(scan, tmp_path, scan.files[0].name)

    def test_only_the_first_file_is_read_again(self, tmp_path, write_series):
        write_series(tmp_path / "ct")
        scan = read_dicom(tmp_path / "ct")
        expected = write(make_mask(scan, 1), scan, tmp_path / "before.dcm")
        for file in scan.files[1:]:
            file.unlink()
        found = write(make_mask(scan, 1), scan, tmp_path / "after.dcm")
        for keyword in ("PerFrameFunctionalGroupsSequence", "ReferencedSeriesSequence", "PixelData"):
            assert found[keyword].value == expected[keyword].value

    def refuse(self, scan: Scan, folder: Path, words: str) -> None:
        with pytest.raises(UserError, match=words) as caught:
            write_dicom_seg(make_mask(scan, 1), read_sources(scan), folder / "s.dcm", MAKER)
        assert "\n" not in str(caught.value)
        assert not (folder / "s.dcm").exists()

    def test_misuse(self, tmp_path, write_series):
        write_series(tmp_path / "ct")
        scan = read_dicom(tmp_path / "ct")
        for mask in (make_mask(scan)[:, :, :3], np.full(scan.values.shape, 255, np.uint8)):
            with pytest.raises(ValueError, match="expected: 0 to 1"):
                write_dicom_seg(mask, read_sources(scan), tmp_path / "s.dcm", MAKER)


@pytest.mark.real_data
class TestRealData:
    def test_whole_scan(self, lung_ct_data, tmp_path):
        scan = read_dicom(lung_ct_data / "covid_ct_md" / "P001")
        mask = make_mask(scan, 10, 11, 80, 147)
        seg = write(mask, scan, tmp_path / "s.dcm")
        np.testing.assert_array_equal(lay_on_sources(seg, scan), mask)
        assert (tmp_path / "s.dcm").stat().st_size < 4 * 512 * 512 / 8 + 100_000

    def test_incomplete_headers(self, lung_ct_data, tmp_path):
        scan = read_dicom(lung_ct_data / "lungmask_dicom")
        with pytest.raises(UserError, match="FrameOfReferenceUID missing"):
            write_dicom_seg(make_mask(scan, 1), read_sources(scan), tmp_path / "s.dcm", MAKER)
