from __future__ import annotations

import stat
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from pydicom import Dataset, FileMetaDataset, dcmread, dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from scripts.errors import UserError
from scripts.io.dicom import reading
from scripts.io.dicom.archive import unpacked
from scripts.io.dicom.header import get_number, get_text
from scripts.io.dicom.reading import read_dicom
from scripts.io.dicom.series import list_series
from scripts.io.limits import Limits, limited
from scripts.io.volume import Note
from tests.scan_fixtures import uid

OBLIQUE = (0.96, 0.28, 0.0, -0.224, 0.768, 0.6)  # two unit vectors with a right angle between them
ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "prone": (-1, 0, 0, 0, -1, 0),
    "mirrored": (-1, 0, 0, 0, 1, 0),
    "turned": (0, 1, 0, -1, 0, 0),
    "oblique": OBLIQUE,
}


def findings(scan) -> list[Note]:
    """What was noticed, but for what all of these small series have."""
    return [note for note in scan.notes if note.code not in ("few_slices", "small_field_of_view")]


def codes_of(scan) -> list[str]:
    return [note.code for note in findings(scan)]


def kinds_of(scan) -> list[str]:
    return [note.kind for note in findings(scan)]


def text_of(scan, code: str) -> str:
    return next(note.text for note in scan.notes if note.code == code)


def refusal(folder: Path, *args: str) -> str:
    with pytest.raises(UserError) as caught:
        read_dicom(folder, *args)
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message
    assert str(folder.name) in message
    return message


def itk_series(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def itk_affine(image: sitk.Image) -> np.ndarray:
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = direction * image.GetSpacing(), image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


def at(*heights: float) -> list[tuple[float, float, float]]:
    return [(-10.0, -20.0, height) for height in heights]


class TestGeometryAndValues:
    @pytest.mark.parametrize("name", ORIENTATIONS)
    @pytest.mark.parametrize("descending", [False, True])
    def test_agrees_with_the_series_reader_of_itk(self, tmp_path, write_series, name, descending):
        orientation = np.array(ORIENTATIONS[name], float)
        normal = np.cross(orientation[:3], orientation[3:])
        steps = 2.5 * np.arange(6) * (-1 if descending else 1)
        positions = np.array([-10.0, -20.0, 300.0]) + steps[:, None] * normal

        def change(ds: Dataset, k: int) -> None:
            ds.ImageOrientationPatient = orientation.tolist()
            ds.PatientPosition = "FFS"

        stored = write_series(tmp_path, np.round(positions, 6).tolist(), change=change)
        scan, oracle = read_dicom(tmp_path), itk_series(tmp_path)
        np.testing.assert_allclose(scan.affine, itk_affine(oracle), atol=1e-4)
        np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), sitk.GetArrayViewFromImage(oracle))
        assert scan.values.dtype == np.int16
        ascending = stored[::-1] if descending else stored
        np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), ascending.astype(int) - 1024)
        assert codes_of(scan) == []

    def test_affine_by_hand(self, tmp_path, write_series):
        stored = write_series(tmp_path)
        scan = read_dicom(tmp_path)
        expected = [[-0.7, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, 100], [0, 0, 0, 1]]  # spacing is (rows, columns)
        np.testing.assert_allclose(scan.affine, expected, atol=1e-9)
        assert scan.spacing == pytest.approx((0.7, 0.8, 2.5))
        assert scan.values.shape == (24, 20, 6)
        assert scan.values[5, 3, 2] == int(stored[2, 3, 5]) - 1024
        assert (scan.kind, scan.name, scan.slope, scan.intercept) == ("dicom", tmp_path.name, 1.0, 0.0)
        assert scan.voxel_size_known

    def test_files_are_in_the_order_of_the_slices(self, tmp_path, write_series):
        write_series(tmp_path)
        heights = [float(dcmread(file).ImagePositionPatient[2]) for file in read_dicom(tmp_path).files]
        assert heights == [100, 102.5, 105, 107.5, 110, 112.5]
        assert sorted(file.name for file in read_dicom(tmp_path).files) == [f"a{k:03d}" for k in range(6)]

    @pytest.mark.parametrize(
        "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, DeflatedExplicitVRLittleEndian]
    )
    def test_transfer_syntaxes(self, tmp_path, write_series, syntax):
        stored = write_series(tmp_path, syntax=syntax)
        scan = read_dicom(tmp_path)
        np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored.astype(int) - 1024)
        assert scan.facts["compression"] == syntax.name

    def test_signed_values_and_padding_stay_as_stored(self, tmp_path, write_series):
        stored = make_signed(3)
        stored[:, :4] = -2048

        def change(ds: Dataset, k: int) -> None:
            ds.RescaleIntercept = 0
            ds.add_new("PixelPaddingValue", "SS", -2048)

        write_series(tmp_path, 3, stored=stored, change=change)
        np.testing.assert_array_equal(read_dicom(tmp_path).values.transpose(2, 1, 0), stored)

    def test_each_slice_has_its_own_rescaling(self, tmp_path, write_series):
        def change(ds: Dataset, k: int) -> None:
            ds.RescaleSlope, ds.RescaleIntercept = 1 + k % 2, -1000 - k

        stored = write_series(tmp_path, change=change)
        scan = read_dicom(tmp_path)
        k = np.arange(6)[:, None, None]
        assert scan.values.dtype == np.int16
        np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored.astype(int) * (1 + k % 2) - 1000 - k)

    def test_fractional_slope_gives_float32(self, tmp_path, write_series):
        def change(ds: Dataset, k: int) -> None:
            ds.RescaleSlope = 0.25 if k == 2 else 1

        stored = write_series(tmp_path, change=change)
        scan = read_dicom(tmp_path)
        expected = stored.astype(float)
        expected[2] *= 0.25
        assert scan.values.dtype == np.float32
        np.testing.assert_allclose(scan.values.transpose(2, 1, 0), expected - 1024, atol=1e-3)

    def test_values_beyond_16_bits_are_clipped_and_told(self, tmp_path, write_series):
        stored = make_signed(3).astype(np.uint16) % 3000
        stored[1, 2, 3] = 60000

        def change(ds: Dataset, k: int) -> None:
            ds.BitsStored, ds.HighBit = 16, 15

        write_series(tmp_path, 3, stored=stored, change=change)
        scan = read_dicom(tmp_path)
        assert scan.values[3, 2, 1] == 32767
        assert text_of(scan, "hu_clipped").startswith("1 voxel")

    def test_facts_name_nobody(self, tmp_path, write_series):
        write_series(tmp_path)
        scan = read_dicom(tmp_path)
        assert scan.facts["kernel"] == "B60f"
        assert scan.facts["kvp"] == 120
        assert scan.facts["slice_thickness_mm"] == 2.5
        assert scan.facts["spacing_mm"] == pytest.approx([0.7, 0.8, 2.5])
        assert (scan.facts["manufacturer"], scan.facts["model"]) == ("Maker", "Model 5")
        told = (str(scan.facts) + str(scan.notes)).upper()
        for word in ("SECRET", "1970", "202003", "1.2.826"):
            assert word not in told

    @pytest.mark.parametrize("count", [1, 2])
    def test_few_slices(self, tmp_path, write_series, count):
        write_series(tmp_path, count)
        scan = read_dicom(tmp_path)
        assert scan.values.shape == (24, 20, count)
        assert scan.spacing[2] == pytest.approx(2.5)
        assert codes_of(scan) == (["one_slice"] if count == 1 else [])

    def test_one_file(self, tmp_path, write_series):
        stored = write_series(tmp_path, 1)
        scan = read_dicom(tmp_path / "a000")
        np.testing.assert_array_equal(scan.values[:, :, 0].T, stored[0].astype(int) - 1024)
        assert scan.name == "a000"

    def test_one_slice_without_thickness(self, tmp_path, write_series):
        write_series(tmp_path, 1, change=lambda ds, k: delattr(ds, "SliceThickness"))
        scan = read_dicom(tmp_path)
        assert codes_of(scan) == ["no_thickness"]
        assert not scan.voxel_size_known


def make_signed(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(-1000, 2000, (count, 20, 24), np.int16)


class TestIrregularGeometry:
    def test_missing_slices(self, tmp_path, write_series):
        write_series(tmp_path, at(100, 102.5, 105, 112.5, 115, 117.5))
        scan = read_dicom(tmp_path)
        assert codes_of(scan) == ["missing_slices"]
        words = text_of(scan, "missing_slices")
        assert words.startswith("2 slice(s) are missing between 105.0 and 112.5 mm")
        assert "up to 5.0 mm off" in words
        assert scan.spacing[2] == pytest.approx(2.5)
        assert scan.affine[2, 3] == 100

    def test_three_slices_of_four(self, tmp_path, write_series):
        write_series(tmp_path, at(0, 1, 3))
        scan = read_dicom(tmp_path)
        assert codes_of(scan) == ["missing_slices"]
        assert scan.spacing[2] == pytest.approx(1)

    def test_uneven_slices(self, tmp_path, write_series):
        write_series(tmp_path, at(0, 2.5, 5, 8.5, 11, 13.5))
        scan = read_dicom(tmp_path)
        assert codes_of(scan) == ["uneven_slices"]
        assert "between 5.0 and 8.5 mm (steps of 3.50 to 3.50 mm) instead of 2.5 mm" in text_of(scan, "uneven_slices")

    def test_rounded_positions_are_even_and_the_mean_counts(self, tmp_path, write_series):
        write_series(tmp_path, at(*[round(1.25 * k + 1e-6, 1) for k in range(9)]))
        scan = read_dicom(tmp_path)
        assert codes_of(scan) == []
        assert scan.spacing[2] == pytest.approx(1.25)

    def test_meaningless_steps_are_refused(self, tmp_path, write_series):
        write_series(tmp_path, at(0, 1, 2.4, 4.7, 9.0, 11.1, 18.5))
        assert "steps from 1.00 to 7.40 mm between 7 slices" in refusal(tmp_path)

    def test_slices_shifted_sideways_are_refused(self, tmp_path, write_series):
        positions = at(0, 2.5, 5, 7.5, 10)
        positions[2] = (15.0, -20.0, 5.0)
        write_series(tmp_path, positions)
        assert "25.0 mm beside the line" in refusal(tmp_path)

    def test_gantry_tilt_keeps_the_shear(self, tmp_path, write_series):
        tilt = np.radians(15)
        down = [0, round(np.cos(tilt), 6), round(-np.sin(tilt), 6)]

        def change(ds: Dataset, k: int) -> None:
            ds.ImageOrientationPatient = [1, 0, 0, *down]
            ds.GantryDetectorTilt = 15

        write_series(tmp_path, at(0, 5, 10, 15), change=change)
        scan = read_dicom(tmp_path)
        assert "15.0 degrees" in text_of(scan, "gantry_tilt")
        for x, y, z in [(0, 0, 0), (3, 7, 0), (23, 19, 3)]:  # PS3.3 C.7.6.2.1.1, by hand
            lps = np.array([-10 + 0.7 * x, -20 + 0.8 * y * down[1], 5 * z + 0.8 * y * down[2]])
            np.testing.assert_allclose(scan.affine @ [x, y, z, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-5)

    def test_a_tilt_of_38_degrees_is_refused(self, tmp_path, write_series):
        tilt = np.radians(38)
        down = [0, round(np.cos(tilt), 6), round(-np.sin(tilt), 6)]
        write_series(
            tmp_path,
            at(0, 5, 10, 15),
            change=lambda ds, k: setattr(ds, "ImageOrientationPatient", [1, 0, 0, *down]),
        )
        assert "38.0 degrees" in refusal(tmp_path)

    def test_tilt_in_the_header_only(self, tmp_path, write_series):
        write_series(tmp_path, change=lambda ds, k: setattr(ds, "GantryDetectorTilt", 12))
        scan = read_dicom(tmp_path)
        assert "12 degrees that the positions do not show" in text_of(scan, "gantry_tilt")

    def test_coronal_series_is_told(self, tmp_path, write_series):
        def change(ds: Dataset, k: int) -> None:
            ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

        write_series(tmp_path, [(0, 2.0 * k, 0) for k in range(16)], change=change)
        scan = read_dicom(tmp_path)
        assert codes_of(scan) == ["not_axial"]
        np.testing.assert_allclose(scan.affine[:3, 2], [0, -2, 0], atol=1e-9)

    def test_duplicates_with_the_same_pixels_are_dropped(self, tmp_path, write_series):
        stored = write_series(tmp_path)
        (tmp_path / "copy").mkdir()
        for k in (1, 4):
            (tmp_path / "copy" / f"{k}").write_bytes((tmp_path / f"a{k:03d}").read_bytes())
        scan = read_dicom(tmp_path)
        assert codes_of(scan) == ["duplicates_dropped"]
        assert text_of(scan, "duplicates_dropped").startswith("2 slice(s)")
        assert kinds_of(scan) == ["repair"]
        np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored.astype(int) - 1024)
        assert len(scan.files) == 6

    def test_different_slices_at_one_position_are_refused(self, tmp_path, write_series):
        write_series(tmp_path, at(0, 1, 1, 2))
        assert "lie at one position and differ" in refusal(tmp_path)

    @pytest.mark.parametrize(
        ("keyword", "value", "words"),
        [
            ("PixelSpacing", [0.8, 0.8], "0.8 x 0.8 mm between pixels, the rest 0.8 x 0.7"),
            ("ImageOrientationPatient", [1, 0, 0, 0, 0, -1], "1 x 0 x 0 x 0 x 0 x -1 as orientation"),
            ("ImageOrientationPatient", None, "no as orientation"),
            ("PixelSpacing", None, "no mm between pixels"),
        ],
    )
    def test_unlike_slices_are_named(self, tmp_path, write_series, keyword, value, words):
        def change(ds: Dataset, k: int) -> None:
            if k == 2:
                setattr(ds, keyword, value)

        write_series(tmp_path, change=change)
        odd = next(file.name for file in tmp_path.iterdir() if getattr(dcmread(file), keyword) == value)
        assert f"{odd}: {words}" in refusal(tmp_path)

    def test_unlike_sizes_are_named(self, tmp_path, write_series):
        def change(ds: Dataset, k: int) -> None:
            if k == 0:
                ds.Rows, ds.Columns = ds.Columns, ds.Rows

        write_series(tmp_path, change=change)
        assert "20 x 24 pixels, the rest 24 x 20" in refusal(tmp_path)

    def test_orientation_within_rounding_is_no_difference(self, tmp_path, write_series):
        def change(ds: Dataset, k: int) -> None:
            ds.ImageOrientationPatient = [1, 2e-7 * k, 0, 0, 1, 0]

        write_series(tmp_path, change=change)
        assert codes_of(read_dicom(tmp_path)) == []

    def test_orientation_that_is_none_is_refused(self, tmp_path, write_series):
        write_series(tmp_path, change=lambda ds, k: setattr(ds, "ImageOrientationPatient", [1, 0, 0, 1, 0, 0]))
        assert "ImageOrientationPatient 1 x 0 x 0 x 1 x 0 x 0" in refusal(tmp_path / "a000")


class TestMissingAttributes:
    @pytest.mark.parametrize("value", [None, [0.0, 0.0], [-1.0, 0.7]])
    def test_no_pixel_spacing(self, tmp_path, write_series, value):
        write_series(tmp_path, change=lambda ds, k: setattr(ds, "PixelSpacing", value))
        scan = read_dicom(tmp_path)
        assert codes_of(scan) == ["no_pixel_spacing"]
        assert not scan.voxel_size_known
        assert scan.facts["spacing_mm"] is None

    def test_no_position_but_a_location(self, tmp_path, write_series):
        def change(ds: Dataset, k: int) -> None:
            del ds.ImagePositionPatient
            ds.SliceLocation = 50 - 2.0 * k

        stored = write_series(tmp_path, change=change)
        scan = read_dicom(tmp_path)
        assert codes_of(scan) == ["no_position"]
        assert not scan.voxel_size_known
        np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored[::-1].astype(int) - 1024)

    def test_unknown_order_is_refused(self, tmp_path, write_series):
        write_series(tmp_path, change=lambda ds, k: delattr(ds, "ImagePositionPatient"))
        assert "order cannot be known" in refusal(tmp_path)

    def test_one_slice_without_position_is_named(self, tmp_path, write_series):
        def change(ds: Dataset, k: int) -> None:
            if k == 3:
                del ds.ImagePositionPatient

        write_series(tmp_path, change=change)
        odd = next(file.name for file in tmp_path.iterdir() if "ImagePositionPatient" not in dcmread(file))
        assert f"{odd}: no ImagePositionPatient" in refusal(tmp_path)

    def test_no_orientation_is_an_assumption(self, tmp_path, write_series):
        write_series(tmp_path, change=lambda ds, k: delattr(ds, "ImageOrientationPatient"))
        scan = read_dicom(tmp_path)
        assert kinds_of(scan) == ["assumption"]
        assert scan.affine[0, 0] == pytest.approx(-0.7)

    def test_no_rescaling_is_told(self, tmp_path, write_series):
        write_series(tmp_path, change=lambda ds, k: delattr(ds, "RescaleSlope"))
        assert codes_of(read_dicom(tmp_path)) == ["not_hu"]

    def test_lossy_compression_is_told(self, tmp_path, write_series):
        write_series(tmp_path, change=lambda ds, k: setattr(ds, "LossyImageCompression", "01"))
        assert codes_of(read_dicom(tmp_path)) == ["lossy_compression"]


def number(value: int):
    return lambda ds, k: setattr(ds, "SeriesNumber", value)


def scout(ds: Dataset, k: int) -> None:
    ds.SeriesNumber, ds.ImageType = 1, ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


class TestChoiceOfSeries:
    def test_several_candidates_are_listed(self, tmp_path, write_series):
        write_series(tmp_path / "x", 4, series="a", change=number(2))
        write_series(tmp_path / "y", 6, series="b", change=number(5))
        message = refusal(tmp_path)
        ids = [series.id for series in list_series(tmp_path)]
        assert "2 CT series" in message
        assert f"series 2 (id {ids[0]}): 4 slices, 2.5 mm thick, kernel B60f" in message
        assert f"series 5 (id {ids[1]}): 6 slices" in message
        assert "--series 2" in message
        assert "SECRET" not in message.upper()

    def test_chosen_by_number_uid_or_id(self, tmp_path, write_series):
        write_series(tmp_path / "x", 4, series="a", change=number(2))
        write_series(tmp_path / "y", 6, series="b", change=number(5))
        second = list_series(tmp_path)[1]
        for wanted in ("5", second.uid, second.id):
            assert read_dicom(tmp_path, wanted).values.shape[2] == 6
        assert read_dicom(tmp_path, "2").values.shape[2] == 4
        assert "none of them --series 7" in refusal(tmp_path, "7")

    def test_number_shared_by_two_is_refused(self, tmp_path, write_series):
        write_series(tmp_path / "x", 4, series="a")
        write_series(tmp_path / "y", 6, series="b")
        first = list_series(tmp_path)[0]
        assert "several of them --series 3" in refusal(tmp_path, "3")
        assert f"--series {first.id}" in refusal(tmp_path)

    def test_localizer_derived_and_reformat_are_left_out(self, tmp_path, write_series):
        def derived(ds: Dataset, k: int) -> None:
            ds.ImageType, ds.SeriesNumber = ["DERIVED", "SECONDARY"], 9

        def coronal(ds: Dataset, k: int) -> None:
            ds.ImageOrientationPatient, ds.SeriesNumber = [1, 0, 0, 0, 0, -1], 8

        write_series(tmp_path, 2, series="s", change=scout)
        write_series(tmp_path, 1, series="d", change=derived)
        write_series(tmp_path, [(0, 2.0 * k, 0) for k in range(16)], series="c", change=coronal)
        stored = write_series(tmp_path, 17, series="a")
        scan = read_dicom(tmp_path)
        np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored.astype(int) - 1024)
        assert kinds_of(scan) == ["assumption"]
        words = text_of(scan, "series_chosen")
        assert "Series 3 was taken" in words
        for reason in ("localizer", "one derived image", "not axial"):
            assert reason in words
        assert codes_of(read_dicom(tmp_path, "8")) == ["not_axial"]

    def test_localizer_within_the_series_is_dropped(self, tmp_path, write_series):
        def change(ds: Dataset, k: int) -> None:
            if k == 0:
                ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
                ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

        stored = write_series(tmp_path, change=change)
        scan = read_dicom(tmp_path)
        assert codes_of(scan) == ["localizer_dropped"]
        np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored[1:].astype(int) - 1024)

    def test_localizer_alone_is_refused(self, tmp_path, write_series):
        write_series(tmp_path, 1, change=scout)
        assert "a localizer (scout view)" in refusal(tmp_path / "a000")

    @pytest.mark.parametrize("modality", ["MR", "PT", "CR"])
    def test_other_modalities_are_named(self, tmp_path, write_series, modality):
        write_series(tmp_path, change=lambda ds, k: setattr(ds, "Modality", modality))
        assert f"{modality}; expected: CT images" in refusal(tmp_path)

    def test_ct_is_taken_from_among_other_modalities(self, tmp_path, write_series):
        write_series(tmp_path, 3, series="p", change=lambda ds, k: setattr(ds, "Modality", "PT"))
        write_series(tmp_path, 5, series="a")
        scan = read_dicom(tmp_path)
        assert scan.values.shape[2] == 5
        assert "PT, " in text_of(scan, "series_chosen")

    def test_pictures_made_from_ct_are_no_candidates(self, tmp_path, write_series):
        def change(ds: Dataset, k: int) -> None:
            ds.SOPClassUID = SecondaryCaptureImageStorage

        write_series(tmp_path, 3, series="p", change=change)
        refusal(tmp_path)
        write_series(tmp_path, 5, series="a")
        assert read_dicom(tmp_path).values.shape[2] == 5

    @pytest.mark.parametrize(("photometric", "samples"), [("MONOCHROME1", 1), ("RGB", 3)])
    def test_other_photometries_are_refused(self, tmp_path, write_series, photometric, samples):
        def change(ds: Dataset, k: int) -> None:
            ds.PhotometricInterpretation, ds.SamplesPerPixel = photometric, samples
            ds.PixelData = ds.PixelData * samples
            if samples == 3:
                ds.PlanarConfiguration = 0

        write_series(tmp_path, 2, change=change)
        assert photometric in refusal(tmp_path / "a000")

    def test_bits_above_those_stored_are_refused(self, tmp_path, write_series):
        write_series(tmp_path, 2, change=lambda ds, k: setattr(ds, "HighBit", 15))
        assert refusal(tmp_path).endswith(
            "12 bits stored up to bit 15, which readers take for different values; "
            "expected: HighBit 11, one below BitsStored (PS3.5 8.1.1)"
        )


class TestFiles:
    def test_names_and_other_files_do_not_matter(self, tmp_path, write_series):
        write_series(tmp_path / "deep" / "er")
        (tmp_path / "DICOMDIR").write_bytes(make_dicomdir())
        (tmp_path / "notes.txt").write_text("no DICOM")
        (tmp_path / ".hidden.dcm").write_bytes(b"\0" * 300)
        (tmp_path / "empty").touch()
        (series,) = list_series(tmp_path)
        assert len(series.slices) == 6
        assert codes_of(read_dicom(tmp_path)) == []

    def test_a_copy_that_left_empty_files_is_told(self, tmp_path, write_series):
        write_series(tmp_path)
        last = read_dicom(tmp_path).files[-1]
        last.write_bytes(b"")  # there is no gap between the others
        (tmp_path / ".lock").touch()
        scan = read_dicom(tmp_path)
        assert (codes_of(scan), kinds_of(scan)) == (["empty_files"], ["warning"])
        assert text_of(scan, "empty_files").startswith("1 file(s) of 0 bytes")
        assert "empty_files" not in codes_of(read_dicom(min(tmp_path.glob("a*"))))  # of one slice nothing is missing

    def test_nothing_to_read(self, tmp_path):
        (tmp_path / "notes.txt").write_text("no DICOM")
        assert "no DICOM images" in refusal(tmp_path)
        assert "no such file or folder" in refusal(tmp_path / "absent")

    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
    @pytest.mark.parametrize("kept", [0.3, 0.9, -1])
    def test_truncated_file_is_named(self, tmp_path, write_series, syntax, kept):
        write_series(tmp_path, syntax=syntax)
        whole = (tmp_path / "a002").read_bytes()
        pixels = whole.rindex(b"\xe0\x7f\x10\x00")
        end = (
            pixels + int(kept * (len(whole) - pixels))
            if kept > 0
            else len(whole) - (20 if syntax == RLELossless else 1)
        )
        (tmp_path / "a002").write_bytes(whole[:end])
        assert "a002: truncated" in refusal(tmp_path)

    @pytest.mark.parametrize("size", [135, 200, 400, 700])
    def test_file_that_ends_in_its_header_is_named(self, tmp_path, write_series, size):
        write_series(tmp_path)
        (tmp_path / "a002").write_bytes((tmp_path / "a002").read_bytes()[:size])
        with pytest.raises(UserError, match=r"a002: .*truncated"):
            read_dicom(tmp_path)

    def test_damaged_dcm_is_named(self, tmp_path, write_series):
        write_series(tmp_path)
        (tmp_path / "slice.dcm").write_bytes(b"\0" * 1000)
        with pytest.raises(UserError, match=r"slice\.dcm: truncated, damaged or no DICOM"):
            read_dicom(tmp_path)

    @pytest.mark.parametrize("tag", [b"\x20\x00\x0e\x00UI", b"\x28\x00\x04\x00CS"])  # SeriesInstanceUID, Photometric...
    def test_damaged_values_are_no_traceback(self, tmp_path, write_series, tag):
        write_series(tmp_path)
        whole = (tmp_path / "a002").read_bytes()
        (tmp_path / "a002").write_bytes(whole.replace(tag, tag[:4] + b"\x7f\x01", 1))
        assert refusal(tmp_path).isprintable()

    def test_undecodable_pixels_name_file_and_syntax(self, tmp_path, write_series):
        write_series(tmp_path, syntax=RLELossless)
        whole = bytearray((tmp_path / "a002").read_bytes())
        start = whole.rindex(b"\xe0\x7f\x10\x00") + 32  # the RLE header: number of segments, their offsets
        whole[start : start + 64] = b"\xff" * 64
        (tmp_path / "a002").write_bytes(whole)
        with pytest.raises(UserError, match=r"a002: pixels \(RLE Lossless\) cannot be decoded"):
            read_dicom(tmp_path)


def make_dicomdir() -> bytes:
    """File meta information of a DICOMDIR and nothing else."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = (
        MediaStorageDirectoryStorage,
        "1.2.3",
    )
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


class TestUnpacked:
    def test_reads_a_zip_and_leaves_nothing(self, tmp_path, write_series):
        stored = write_series(tmp_path / "in" / "series")
        with zipfile.ZipFile(tmp_path / "case 7.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in (tmp_path / "in").rglob("a*"):
                archive.write(file, file.relative_to(tmp_path / "in"))
        with unpacked(tmp_path / "case 7.zip") as folder:
            scan = read_dicom(folder)
        np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored.astype(int) - 1024)
        assert scan.name == "case 7"
        assert not folder.parent.exists()

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_entries_of_one_name_are_all_read(self, tmp_path, write_series):
        stored = write_series(tmp_path / "in", 3)
        write_series(tmp_path / "in", 3, series="b")
        with zipfile.ZipFile(tmp_path / "flat.zip", "w") as archive:
            for file in sorted((tmp_path / "in").iterdir()):  # of two series, the second under the names of the first
                archive.write(file, f"IM{file.name[1:]}")
        with unpacked(tmp_path / "flat.zip") as folder:
            scan = read_dicom(folder, uid("a"))
            assert read_dicom(folder, uid("b")).values.shape[2] == 3
        np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored.astype(int) - 1024)

    def test_folder_is_itself(self, tmp_path):
        with unpacked(tmp_path) as folder:
            assert folder == tmp_path
        assert tmp_path.exists()

    @pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", "..\\out", "C:\\out", "\\\\server\\out"])
    def test_paths_that_lead_out_are_refused(self, tmp_path, name):
        self.refuse(tmp_path, zipfile.ZipInfo(name), "leads out")

    def test_links_are_refused(self, tmp_path):
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        self.refuse(tmp_path, entry, "a link")

    def test_size_is_bounded(self, tmp_path):
        with limited(Limits(archive_bytes=3)):
            self.refuse(tmp_path, zipfile.ZipInfo("big"), "4 bytes unpacked; expected: at most 3")

    def test_number_of_files_is_bounded(self, tmp_path):
        with limited(Limits(archive_files=0)):
            self.refuse(tmp_path, zipfile.ZipInfo("one"), "1 files; expected: at most 0")

    def test_damaged_archive(self, tmp_path):
        (tmp_path / "x.zip").write_bytes(b"PK nothing")
        with pytest.raises(UserError, match=r"x\.zip: cannot be unpacked"), unpacked(tmp_path / "x.zip"):
            pass

    def refuse(self, tmp_path: Path, entry: zipfile.ZipInfo, words: str) -> None:
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr(entry, b"1234")
        with pytest.raises(UserError, match=words), unpacked(tmp_path / "x.zip"):
            pass
        assert sorted(file.name for file in tmp_path.iterdir()) == ["x.zip"]


class TestEnhanced:
    def test_frames_are_sorted_by_their_positions(self, tmp_path, write_series, make_enhanced):
        stored = np.random.default_rng(0).integers(0, 4096, (4, 20, 24), np.uint16)
        write_series(tmp_path, 1, change=lambda ds, k: make_enhanced(ds, [5.0, 0.0, 10.0, 15.0], stored))
        scan = read_dicom(tmp_path)
        np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), stored[[1, 0, 2, 3]].astype(int) - 1024)
        expected = [[-0.7, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 5, 0], [0, 0, 0, 1]]
        np.testing.assert_allclose(scan.affine, expected, atol=1e-9)
        assert codes_of(scan) == []
        assert len(scan.files) == 1

    def test_frames_with_rescalings_of_their_own_are_refused(self, tmp_path, write_series, make_enhanced):
        stored = np.zeros((2, 20, 24), np.uint16)

        def change(ds: Dataset, k: int) -> None:
            make_enhanced(ds, [0.0, 5.0], stored)
            shared = ds.SharedFunctionalGroupsSequence[0]
            for frame, slope in zip(ds.PerFrameFunctionalGroupsSequence, (1, 2), strict=True):
                rescale = Dataset()
                rescale.RescaleSlope, rescale.RescaleIntercept = slope, -1024
                frame.PixelValueTransformationSequence = [rescale]
            del shared.PixelValueTransformationSequence

        write_series(tmp_path, 1, change=change)
        assert "different rescale slopes" in refusal(tmp_path / "a000")


@pytest.mark.real_data
class TestRealData:
    def test_whole_scan_agrees_with_itk(self, lung_ct_data):
        folder = lung_ct_data / "covid_ct_md" / "P001"
        start = time.perf_counter()
        scan = read_dicom(folder)
        print(f"read in {time.perf_counter() - start:.1f} s")
        oracle = itk_series(folder)
        np.testing.assert_array_equal(scan.values.transpose(2, 1, 0), sitk.GetArrayViewFromImage(oracle))
        np.testing.assert_allclose(scan.affine, itk_affine(oracle), atol=1e-4)
        assert scan.values.shape == (512, 512, 148)
        assert scan.spacing == pytest.approx((0.748046875, 0.748046875, 2.0))
        assert "JPEG Lossless" in scan.facts["compression"]
        assert codes_of(scan) == []

    def test_truncated_jpeg_is_named(self, lung_ct_data, tmp_path):
        for file in sorted((lung_ct_data / "covid_ct_md" / "P001").iterdir())[:3]:
            (tmp_path / file.name).write_bytes(file.read_bytes())
        victim = min(tmp_path.iterdir())
        victim.write_bytes(victim.read_bytes()[:-30])
        assert f"{victim.name}: truncated" in refusal(tmp_path)

    def test_two_slices(self, lung_ct_data):
        scan = read_dicom(lung_ct_data / "lungmask_dicom")
        assert scan.values.shape == (512, 512, 2)
        assert scan.values.min() == -2048
        assert scan.spacing == pytest.approx((0.625, 0.625, 1.0))


def test_no_more_files_are_decoded_at_once_than_torch_has_threads(tmp_path, write_series, monkeypatch):
    asked: list[int] = []

    def pool(threads: int) -> ThreadPoolExecutor:
        asked.append(threads)
        return ThreadPoolExecutor(threads)

    monkeypatch.setattr(reading, "ThreadPoolExecutor", pool)
    write_series(tmp_path / "ct")
    for threads in (1, 3, 64):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        read_dicom(tmp_path / "ct")
    assert asked == [1, 3, 4]


def test_an_attribute_that_is_a_damaged_sequence_is_absent():
    """pydicom parses it when it is asked for, and raises OSError then."""
    ds = Dataset()
    ds[0x0020000D] = RawDataElement(Tag(0x0020000D), "SQ", 6, b"\xfe\xff\x00", 0, False, True)
    with pytest.raises(OSError, match="No tag to read"):
        ds.get("StudyInstanceUID")
    ds[0x0020000D] = RawDataElement(Tag(0x0020000D), "SQ", 6, b"\xfe\xff\x00", 0, False, True)
    assert get_text(ds, "StudyInstanceUID") == ""
    assert get_number(ds, "StudyInstanceUID") is None
