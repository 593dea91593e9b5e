from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from highdicom.sr import srread
from pydicom import Dataset, dcmread

from scripts.anatomy.lungs import segment_lungs
from scripts.anatomy.tissue import segment_tissue
from scripts.data.phantom.scan import Phantom, make_phantom
from scripts.errors import UserError
from scripts.io.dicom.derived import Maker
from scripts.io.dicom.reading import read_dicom
from scripts.io.dicom.seg import write_dicom_seg
from scripts.io.dicom.sources import read_sources
from scripts.io.dicom.sr import write_dicom_sr
from scripts.io.volume import Scan, canonical
from scripts.report.measure import measure_infection
from tests.scan_fixtures import validate

Write = Callable[..., np.ndarray]
MAKER = Maker(version="1.2", depends_on="weights", parameters=("decision threshold: 0.5",))
VOLUME = "118565006"  # of SNOMED CT
SPACING = (2.6, 2.5, 7.5)


def written(scan: Scan, mask: np.ndarray, measures: dict[str, Any], folder: Path) -> tuple[Dataset, Dataset, Any]:
    """The SEG, the SR and the SR's content."""
    seg = write_dicom_seg(mask, read_sources(scan), folder / "seg.dcm", MAKER)
    path = folder / "sr.dcm"
    assert write_dicom_sr(measures, seg, read_sources(scan), path, MAKER) == path
    validate(seg)
    validate(path)
    return dcmread(seg), dcmread(path), srread(path).content


def values(group: Any) -> dict[str, float]:
    return {one.name.value: float(one.value) for one in group.get_measurements()}


def measure(scan: Scan, mask: np.ndarray, lungs: Any = None) -> dict[str, Any]:
    return measure_infection(
        lambda z: canonical(scan.values, scan.affine)[..., z], canonical(mask, scan.affine), scan.spacing_lps, lungs
    )


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(1, shape=(132, 112, 36), spacing=SPACING)


def test_groups_repeat_the_measures(phantom: Phantom, tmp_path: Path, write_series: Write) -> None:
    def change(ds: Dataset, _: int) -> None:
        ds.PixelSpacing, ds.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]

    stored = (phantom.image.transpose(2, 1, 0) + 1024).astype(np.uint16)
    write_series(tmp_path / "ct", [(-170, -140, SPACING[2] * k) for k in range(36)], stored=stored, change=change)
    scan = read_dicom(tmp_path / "ct")
    measures = measure(scan, phantom.infection, segment_lungs(segment_tissue(scan.values, scan.spacing_lps)))
    seg, report, content = written(scan, phantom.infection, measures, tmp_path)
    source = dcmread(scan.files[0])
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "StudyDate"):
        assert report[keyword].value == source[keyword].value
    assert (report.SeriesNumber, report.Modality) == (source.SeriesNumber + 2000, "SR")
    assert report.SeriesDescription == f"Lung opacity SR 1.2 {MAKER.day}, AI, research use"
    said = [one.value for one in report.iterall() if one.keyword == "TextValue"]
    assert {MAKER.parameters[0], "trained on CT of COVID-19 infection", MAKER.version} <= set(said)
    whole, *lesions = content.get_volumetric_roi_measurement_groups()
    found = values(whole)
    assert found[VOLUME] == pytest.approx(measures["infection"]["infection_ml"], rel=1e-9)
    for one in measures["density"]["classes"]:
        code = ":".join("" if limit is None else str(limit) for limit in (one["from_hu"], one["below_hu"]))
        assert found[f"ml:{code}"] == pytest.approx(one["volume_ml"], rel=1e-9)
        assert found[f"pct:{code}"] == pytest.approx(one["infection_percent"], rel=1e-9)
    assert found["112031"] == pytest.approx(measures["density"]["statistics"]["mean_hu"], rel=1e-9)
    both, right, left = content.get_image_measurement_groups()
    for group, part in ((both, "total"), (right, "right"), (left, "left")):
        lung = measures["lungs"][part]
        assert list(values(group).values()) == pytest.approx(
            [lung["lung_ml"], lung["infection_ml"], lung["infected_percent"]], rel=1e-9
        )
        assert group.finding_sites[0].laterality.meaning.lower().startswith({"total": "right and"}.get(part, part))
    listed = measures["lesions"]["lesions"]
    assert len(lesions) == len(listed) > 1
    for number, (group, lesion) in enumerate(zip(lesions, listed, strict=True), 1):
        assert (group.tracking_identifier, values(group)) == (
            f"Lesion {number}",
            {VOLUME: pytest.approx(lesion["volume_ml"], rel=1e-9)},
        )
        assert group.referenced_segment.referenced_sop_instance_uid == seg.SOPInstanceUID
        assert group.referenced_segment.referenced_segment_numbers == [1]


@pytest.mark.parametrize("heads_first", [True, False])
def test_a_lesion_refers_to_the_slices_that_it_spans(heads_first: bool, tmp_path: Path, write_series: Write) -> None:
    heights = 300 - 2.5 * np.arange(8) if heads_first else 100 + 2.5 * np.arange(8)
    write_series(tmp_path / "ct", [(-10.0, -20.0, float(z)) for z in heights])
    scan = read_dicom(tmp_path / "ct")
    mask = np.zeros(scan.values.shape, np.uint8)
    mask[2:9, 3:9, 1:4] = 1
    mask[12:14, 3:5, 6] = 1
    seg, _, content = written(scan, mask, measure(scan, mask), tmp_path)
    whole, large, small = content.get_volumetric_roi_measurement_groups()
    instances = [dcmread(file).SOPInstanceUID for file in scan.files]
    for group, slices in ((whole, [1, 2, 3, 6]), (large, [1, 2, 3]), (small, [6])):
        segment = group.referenced_segment
        images = segment.source_images_for_segmentation
        assert {one.referenced_sop_instance_uid for one in images} == {instances[k] for k in slices}
        assert (segment.referenced_sop_instance_uid, list(segment.referenced_segment_numbers)) == (
            seg.SOPInstanceUID,
            [1],
        )


@pytest.mark.parametrize(
    ("side", "code"),
    [("right", "24028007"), ("left", "7771000"), ("both lungs", "51440002"), ("outside of the lungs", None)],
)
def test_the_side_of_a_lesion_is_coded(side: str, code: str | None, tmp_path: Path, write_series: Write) -> None:
    """Laterality of SNOMED CT, as CID 244 has it; without one no lung is named."""
    write_series(tmp_path / "ct", 4)
    scan = read_dicom(tmp_path / "ct")
    mask = np.zeros(scan.values.shape, np.uint8)
    mask[2:4, 2:4, 1:3] = 1
    measures = measure(scan, mask)
    measures["lesions"]["lesions"][0]["side"] = side
    *_, content = written(scan, mask, measures, tmp_path)
    group = content.get_volumetric_roi_measurement_groups()[1]
    assert [site.laterality.value for site in group.finding_sites] == ([code] if code else [])


def test_frames_of_a_multi_frame_file(tmp_path: Path, write_series: Write, make_enhanced: Callable[..., None]) -> None:
    stored = np.zeros((4, 20, 24), np.uint16)
    write_series(tmp_path / "ct", 1, change=lambda ds, _: make_enhanced(ds, [5.0, 0.0, 10.0, 15.0], stored))
    scan = read_dicom(tmp_path / "ct")
    mask = np.zeros(scan.values.shape, np.uint8)
    mask[2:4, 2:4, :2] = 1
    _, _, content = written(scan, mask, measure(scan, mask), tmp_path)
    (image,) = content.get_volumetric_roi_measurement_groups()[1].referenced_segment.source_images_for_segmentation
    assert sorted(image.referenced_frame_numbers) == [1, 2]


def test_an_empty_mask_has_a_volume_of_zero(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path / "ct")
    scan = read_dicom(tmp_path / "ct")
    mask = np.zeros(scan.values.shape, np.uint8)
    _, _, content = written(scan, mask, measure(scan, mask), tmp_path)
    (whole,) = content.get_volumetric_roi_measurement_groups()
    assert values(whole) == {VOLUME: 0}


def test_uids_are_the_same_again(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path / "ct")
    scan = read_dicom(tmp_path / "ct")
    mask = np.zeros(scan.values.shape, np.uint8)
    mask[3:5, 3:5, 2] = 1

    def uids() -> list[str]:
        _, report, _ = written(scan, mask, measure(scan, mask), tmp_path)
        return [str(one.value) for one in report.iterall() if one.VR == "UI"]

    assert uids() == uids()


def test_volumes_are_needed(tmp_path: Path, write_series: Write) -> None:
    write_series(tmp_path / "ct")
    scan = read_dicom(tmp_path / "ct")
    mask = np.zeros(scan.values.shape, np.uint8)
    measures = measure_infection(None, mask, None, None)
    with pytest.raises(UserError, match="voxel size is unknown"):
        write_dicom_sr(measures, tmp_path / "seg.dcm", read_sources(scan), tmp_path / "sr.dcm", MAKER)
