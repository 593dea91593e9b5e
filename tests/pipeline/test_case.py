"""From a scan to a folder of results and back to the same results:
nothing of the user's is lost or taken for other."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from highdicom.sr import srread
from PIL import Image

from scripts.data.phantom.scan import Phantom, make_phantom
from scripts.errors import UserError
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.ood import OODScore
from scripts.inference.segmenter import Segmenter
from scripts.pipeline import dicom_results, result
from scripts.pipeline.batch import record, segment_in_turn
from scripts.pipeline.case import CaseSegmenter, Settings
from scripts.pipeline.inputs import expand_inputs
from scripts.pipeline.job import describe as describe_run
from scripts.report.preview import describe
from tests.scan_fixtures import validate

pytestmark = pytest.mark.usefixtures("one_slice_shown")
SPACING = (2.6, 2.5, 7.5)
LEFT = 1  # in the phantom's mask; 2 is right


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(1, shape=(132, 112, 36), spacing=SPACING)


@pytest.fixture(scope="module")
def segmenter(weights: Path) -> Segmenter:
    return Segmenter(weights, device="cpu", threshold=0.53)


@pytest.fixture
def chest(phantom: Phantom, tmp_path: Path) -> Path:
    """The phantom as NIfTI."""
    path = tmp_path / "in" / "chest.nii.gz"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(phantom.image, np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1])), path)
    return path


@pytest.fixture
def dicom_chest(phantom: Phantom, write_series: Callable[..., np.ndarray], tmp_path: Path) -> Path:
    """The phantom as a DICOM series."""

    def change(ds: pydicom.Dataset, _: int) -> None:
        ds.PixelSpacing, ds.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]

    folder = tmp_path / "study"
    stored = (phantom.image.transpose(2, 1, 0) + 1024).astype(np.uint16)
    write_series(folder, [(-170, -140, SPACING[2] * k) for k in range(len(stored))], stored=stored, change=change)
    return folder


def run(segmenter: Segmenter, source: Path, out: Path, overwrite: bool = False, **settings: Any) -> dict[str, Any]:
    """Runs a batch; returns the manifest's entry of the one case."""
    model = CaseSegmenter(segmenter, Settings(**settings))
    cases = expand_inputs([source], out)
    (entry,) = record(segment_in_turn(model, cases, out, overwrite), describe_run(model), cases, out)["cases"]
    return entry


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def test_a_dicom_series_gets_the_mask_of_its_voxels_as_nifti_and_as_seg(
    segmenter: Segmenter, phantom: Phantom, chest: Path, dicom_chest: Path, tmp_path: Path
) -> None:
    """The same voxels give the same mask however they are stored;
    the SEG's frames lie on their source slices."""
    assert run(segmenter, dicom_chest, tmp_path / "out")["status"] == "done"
    assert run(segmenter, chest, tmp_path / "plain")["status"] == "done"
    folder = tmp_path / "out" / "study"
    names = {"infection.nii.gz", "infection_seg.dcm", "infection_sr.dcm", "preview.png", "report.html", "report.json"}
    assert {path.name for path in folder.iterdir()} == names
    mask = nib.load(folder / "infection.nii.gz")
    voxels = np.asarray(mask.dataobj)
    expected = np.asarray(nib.load(tmp_path / "plain" / "chest" / "infection.nii.gz").dataobj)
    np.testing.assert_array_equal(voxels, expected)
    assert 0 < voxels.mean() < 1
    assert nib.aff2axcodes(mask.affine) == ("L", "P", "S")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(dicom_chest)))
    oracle = reader.Execute()
    corner = tuple(size - 1 for size in oracle.GetSize())
    for index in ((0, 0, 0), corner):
        world = nib.affines.apply_affine(mask.affine, index) * [-1, -1, 1]
        np.testing.assert_allclose(world, oracle.TransformIndexToPhysicalPoint(index), atol=1e-3)
    seg = pydicom.dcmread(folder / "infection_seg.dcm")
    heights = {pydicom.dcmread(file).SOPInstanceUID: file for file in dicom_chest.iterdir()}
    frames = np.atleast_3d(seg.pixel_array)
    for frame, item in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        source = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        height = float(pydicom.dcmread(heights[source]).ImagePositionPatient[2])
        np.testing.assert_array_equal(frame.T, voxels[..., round(height / SPACING[2])])
    assert frames.sum() == voxels.sum()


def test_the_sr_repeats_the_report_and_a_rerun_its_uids(
    segmenter: Segmenter, dicom_chest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    uids = []
    for _ in range(2):
        assert run(segmenter, dicom_chest, out, overwrite=True)["status"] == "done"
        sr, seg = (pydicom.dcmread(out / "study" / f"infection_{kind}.dcm") for kind in ("sr", "seg"))
        uids.append([sr.SOPInstanceUID, sr.SeriesInstanceUID, seg.SOPInstanceUID, seg.SeriesInstanceUID])
        (out / "study" / "report.json").write_text(json.dumps(report_of(out / "study") | {"run_key": "another"}))
    assert uids[0] == uids[1]
    whole, *lesions = srread(out / "study" / "infection_sr.dcm").content.get_volumetric_roi_measurement_groups()
    measures = report_of(out / "study")["measures"]
    assert float(whole.get_measurements()[0].value) == measures["infection"]["infection_ml"] > 0
    both, *_ = srread(out / "study" / "infection_sr.dcm").content.get_image_measurement_groups()
    assert measures["infection"]["outside_lungs_percent"] > 20  # and the percentage is a lower bound, which is left out
    total = measures["lungs"]["total"]
    assert [float(one.value) for one in both.get_measurements()] == [total["lung_ml"], total["infection_ml"]]
    assert [float(one.get_measurements()[0].value) for one in lesions] == [
        one["volume_ml"] for one in measures["lesions"]["lesions"]
    ]
    assert run(segmenter, dicom_chest, tmp_path / "plain", sr=False)["status"] == "done"
    assert not (tmp_path / "plain" / "study" / "infection_sr.dcm").exists()
    other = Segmenter(segmenter.weights, device="cpu", threshold=0.52)
    assert run(other, dicom_chest, tmp_path / "other")["status"] == "done"
    seg = pydicom.dcmread(tmp_path / "other" / "study" / "infection_seg.dcm")
    assert seg.SOPInstanceUID not in uids[0]


def test_pictures_and_pdf_of_a_study_are_written_when_asked_for(
    segmenter: Segmenter, dicom_chest: Path, tmp_path: Path
) -> None:
    folder, out = dicom_chest.rename(tmp_path / "Meier_Erika"), tmp_path / "out"
    assert run(segmenter, folder, out)["status"] == "done"
    plain = derived(out / "Meier_Erika")
    assert run(segmenter, folder, out, sc=True, pdf=True)["status"] == "refused"  # not taken for done
    assert run(segmenter, folder, out, overwrite=True, sc=True, pdf=True)["status"] == "done"
    assert run(segmenter, folder, out, sc=True, pdf=True)["status"] == "found done"
    found = derived(out / "Meier_Erika")
    lesions = report_of(out / "Meier_Erika")["measures"]["lesions"]["listed_count"]
    pictures = [one for one in found if one.Modality == "OT"]
    assert len(pictures) == 1 + min(lesions, 10) > 1
    assert {one.Modality: one.SeriesNumber for one in found} == {"SEG": 1003, "SR": 2003, "OT": 3003, "DOC": 4003}
    assert len({one.SeriesInstanceUID for one in found}) == 4
    assert len({one.StudyInstanceUID for one in found}) == 1
    assert {one.SOPInstanceUID for one in plain} < {one.SOPInstanceUID for one in found}
    (document,) = [one for one in found if one.Modality == "DOC"]
    content = (out / "Meier_Erika" / "report.pdf").read_bytes()
    assert document.EncapsulatedDocument[: document.EncapsulatedDocumentLength] == content
    other = folder.rename(tmp_path / "X")  # the pictures would differ if they named it
    assert run(segmenter, other, tmp_path / "other", sc=True)["status"] == "done"
    again = [one for one in derived(tmp_path / "other" / "X") if one.Modality == "OT"]
    for one, same in zip(pictures, again, strict=True):
        assert one.SOPInstanceUID == same.SOPInstanceUID
        np.testing.assert_array_equal(one.pixel_array, same.pixel_array)


def derived(folder: Path) -> list[pydicom.Dataset]:
    """The DICOM objects of a case in the order of their names; dciodvfy finds no error in them."""
    files = sorted(folder.glob("*.dcm"))
    for file in files:
        validate(file)
    return [pydicom.dcmread(file) for file in files]


def test_a_scan_that_is_no_dicom_gets_a_pdf_beside_the_page(segmenter: Segmenter, chest: Path, tmp_path: Path) -> None:
    assert run(segmenter, chest, tmp_path / "out", pdf=True, sc=True)["status"] == "done"
    names = {path.name for path in (tmp_path / "out" / "chest").iterdir()}
    assert names == {"infection.nii.gz", "preview.png", "report.html", "report.json", "report.pdf"}
    assert run(segmenter, chest, tmp_path / "out", overwrite=True)["status"] == "done"  # the PDF is ours: replaced
    assert not (tmp_path / "out" / "chest" / "report.pdf").exists()


def test_the_preview_counts_slices_as_the_report_does(
    segmenter: Segmenter, chest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def noted(*given: Any) -> str:
        said.append(describe(*given))
        return said[-1]

    monkeypatch.setattr("scripts.report.preview.describe", noted)
    monkeypatch.setattr(segmenter, "least_slice_share", 1.0)
    run(segmenter, chest, tmp_path / "out")
    measures = report_of(tmp_path / "out" / "chest")["measures"]
    infection = measures["infection"]
    assert infection["affected_slice_count"] < np.count_nonzero(measures["slice_profile"]["infection_voxels"])
    assert said[0].startswith(f"opacities in {infection['affected_slice_count']} of {infection['slice_count']} slices")


@pytest.mark.usefixtures("graded_whatever_lies_outside")
def test_lungs_of_a_whole_chest_have_shares_and_a_grade(segmenter: Segmenter, chest: Path, tmp_path: Path) -> None:
    run(segmenter, chest, tmp_path / "out")
    measures = report_of(tmp_path / "out" / "chest")["measures"]
    assert measures["lungs"]["reason"] is None
    assert measures["severity"]["grades"]["total"]["grade_of_5"] > 0


def test_the_output_may_lie_in_the_dicom_folder(segmenter: Segmenter, dicom_chest: Path) -> None:
    out = dicom_chest / "results"
    first = run(segmenter, dicom_chest, out)
    assert first["status"] == "done"
    assert first["folder"] == "study"
    assert run(segmenter, dicom_chest, out)["status"] == "found done"
    again = run(segmenter, dicom_chest, out, overwrite=True, probability=True)
    assert again["status"] == "done"
    assert "series_chosen" not in {note["code"] for note in report_of(out / "study")["notes"]}


@pytest.mark.parametrize("left", [None, b""])
def test_a_case_without_its_mask_is_not_done(
    left: bytes | None, segmenter: Segmenter, chest: Path, tmp_path: Path
) -> None:
    """Results that were copied in part; what lies there is replaced on demand only."""
    run(segmenter, chest, tmp_path / "out")
    mask = tmp_path / "out" / "chest" / "infection.nii.gz"
    before = mask.read_bytes()
    if left is None:
        mask.unlink()
    else:
        mask.write_bytes(left)
    entry = run(segmenter, chest, tmp_path / "out")
    assert entry["status"] == "refused"
    assert "without its mask" in entry["message"]
    assert run(segmenter, chest, tmp_path / "out", overwrite=True)["status"] == "done"
    assert mask.read_bytes() == before


def test_other_metadata_of_the_same_weights_make_another_result(
    make_checkpoint: Callable[..., Path], chest: Path, tmp_path: Path
) -> None:
    """As a new calibration writes them: what the report says of the scan follows from them."""
    limits = {}
    for limit in (1e-9, 1e9):
        score = OODScore({"decoder.bridge": 32}, (0.0,) * 32, (1.0,) * 32, ((0.0,) * 32,), limit)
        weights = make_checkpoint(tmp_path / "model.pt", familiarity=score.as_metadata())
        entry = run(Segmenter(weights, device="cpu"), chest, tmp_path / "out", overwrite=True)
        limits[limit] = (
            entry["status"],
            "unfamiliar" in {note["code"] for note in report_of(tmp_path / "out" / "chest")["notes"]},
        )
    assert limits == {1e-9: ("done", True), 1e9: ("done", False)}


def test_what_is_not_of_this_command_is_not_replaced(segmenter: Segmenter, chest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(segmenter, chest, out)
    mine = out / "chest" / "corrected_by_hand.nii.gz"
    mine.write_bytes(b"hours of work")
    entry = run(segmenter, chest, out, overwrite=True, probability=True)
    assert entry["status"] == "refused"
    assert "corrected_by_hand.nii.gz" in entry["message"]
    assert mine.read_bytes() == b"hours of work"


def test_a_report_of_something_else_is_not_replaced(segmenter: Segmenter, chest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "chest"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text('{"by": "a radiologist"}')
    assert run(segmenter, chest, tmp_path / "out", overwrite=True)["status"] == "refused"
    assert (folder / "report.json").read_text() == '{"by": "a radiologist"}'


def test_a_case_whose_folder_is_a_file_is_refused(segmenter: Segmenter, chest: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "chest").write_text("a file")
    assert run(segmenter, chest, tmp_path / "out", overwrite=True)["status"] == "refused"
    assert (tmp_path / "out" / "chest").read_text() == "a file"


def test_a_manifest_of_something_else_is_left_alone(segmenter: Segmenter, chest: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for text in ('{"name": "a web page"}', "not json"):
        (tmp_path / "out" / "manifest.json").write_text(text)
        with pytest.raises(UserError, match=r"manifest\.json: not a manifest of this command"):
            run(segmenter, chest, tmp_path / "out")
        assert (tmp_path / "out" / "manifest.json").read_text() == text


def test_the_manifest_keeps_what_earlier_commands_left(segmenter: Segmenter, chest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = chest.with_name("other.nii.gz")
    other.write_bytes(chest.read_bytes())
    run(segmenter, chest, out)
    run(segmenter, other, out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert [entry["name"] for entry in manifest["cases"]] == ["other"]
    assert [entry["name"] for entry in manifest["earlier"]] == ["chest"]
    run(segmenter, chest, out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert [entry["name"] for entry in manifest["earlier"]] == ["other"]
    assert manifest["settings"]["strict"] is False


def lung_mask(path: Path, phantom: Phantom) -> Path:
    codes = np.where(phantom.lungs == LEFT, 2, phantom.lungs > 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(codes, np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1])), path)
    return path


def test_a_corrected_lung_mask_is_another_input(
    segmenter: Segmenter, chest: Path, phantom: Phantom, tmp_path: Path
) -> None:
    lungs = lung_mask(tmp_path / "lungs.nii.gz", phantom)
    assert run(segmenter, chest, tmp_path / "out", lungs=lungs)["status"] == "done"
    assert run(segmenter, chest, tmp_path / "out", lungs=lungs)["status"] == "found done"
    phantom = replace(phantom, lungs=np.where(np.arange(36) < 18, phantom.lungs, 0))
    lung_mask(lungs, phantom)
    entry = run(segmenter, chest, tmp_path / "out", lungs=lungs)
    assert entry["status"] == "refused"
    assert "--overwrite" in entry["message"]


@pytest.mark.parametrize(
    ("name", "data"), [("chest.mhd", "chest.raw"), ("chest.nhdr", "chest.raw"), ("c.hdr", "c.img")]
)
def test_voxels_in_a_second_file_belong_to_the_input(
    name: str, data: str, segmenter: Segmenter, chest: Path, tmp_path: Path
) -> None:
    path = tmp_path / "pair" / name
    path.parent.mkdir()
    sitk.WriteImage(sitk.ReadImage(str(chest)), str(path))
    key = CaseSegmenter(segmenter).key
    (case,) = expand_inputs([path], tmp_path / "out")
    before = key(case)
    assert key(case) == before
    voxels = path.with_name(data)
    voxels.write_bytes(voxels.read_bytes()[:-2] + b"\x01\x01")
    assert key(case) != before


def test_ones_own_lungs_give_shares_where_the_voxel_size_is_unknown(
    segmenter: Segmenter, phantom: Phantom, tmp_path: Path
) -> None:
    """A share needs no millimetres:
    lungs are not judged by their volume in voxels of a placeholder's size."""
    for name, values in (("scan", phantom.image), ("lungs", (phantom.lungs > 0).astype(np.uint8))):
        nib.save(nib.Nifti1Image(values, np.diag([-1.0, -1, 1, 1])), tmp_path / f"{name}.nii.gz")
    run(segmenter, tmp_path / "scan.nii.gz", tmp_path / "out", lungs=tmp_path / "lungs.nii.gz")
    report = report_of(tmp_path / "out" / "scan")
    assert report["case"]["voxel_size_known"] is False
    assert report["measures"]["lungs"]["reason"] is None
    assert report["measures"]["lungs"]["total"]["lung_voxels"] == (phantom.lungs > 0).sum()
    assert "_ml" not in json.dumps(report["measures"])


def test_ones_own_lungs_move_the_box_where_the_voxel_size_is_unknown(
    make_checkpoint: Callable[..., Path], phantom: Phantom, tmp_path: Path
) -> None:
    """Voxels count as 1 mm then, so the box reaches 10 of them beyond the mask."""
    lungs = np.zeros(phantom.image.shape, np.uint8)
    lungs[20:40, 30:80, 12:20], lungs[80:100, 30:80, 12:20] = 1, 2
    for name, values in (("scan", phantom.image), ("lungs", lungs)):
        nib.save(nib.Nifti1Image(values, np.diag([-1.0, -1, 1, 1])), tmp_path / f"{name}.nii.gz")
    weights = make_checkpoint(tmp_path / "model.pt", steps={"field_of_view": "lungs"})
    everywhere = Segmenter(weights, device="cpu", threshold=1e-6)
    copies = mock.patch.object(HounsfieldSlices, "rounded", autospec=True, side_effect=HounsfieldSlices.rounded)
    with copies as made:
        run(everywhere, tmp_path / "scan.nii.gz", tmp_path / "out", lungs=tmp_path / "lungs.nii.gz")
    assert made.call_count == 1
    mask = np.argwhere(nib.load(tmp_path / "out" / "scan" / "infection.nii.gz").dataobj)
    np.testing.assert_array_equal([mask.min(axis=0), mask.max(axis=0)], [[10, 20, 2], [109, 89, 29]])
    report = report_of(tmp_path / "out" / "scan")
    assert report["measures"]["lungs"]["total"]["lung_voxels"] == (lungs > 0).sum()


def test_values_are_read_as_the_weights_state_unless_the_user_says_otherwise(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64).astype(np.uint8)).save(tmp_path / "slice.png")
    weights = make_checkpoint(tmp_path / "model.pt", steps={"intensity": "window:-1350,150"})
    stated = Segmenter(weights, device="cpu")
    (case,) = expand_inputs([tmp_path / "slice.png"])
    keys, seen = set(), {}
    for chosen, applied in (("auto", "window:-1350,150"), ("window:-1250,250", "window:-1250,250")):
        model = CaseSegmenter(stated, Settings(intensity=chosen))
        assert describe_run(model)["settings"]["intensity"] == applied
        with ExitStack() as stack:
            found = model.predict(case, stack)
        assert found.report()["settings"]["intensity"] == applied
        keys.add(model.key(case))
        seen[chosen] = [int(found.hu.min()), int(found.hu.max())]
    assert len(keys) == 2
    assert seen == {"auto": [-1350, 150], "window:-1250,250": [-1250, 250]}


def test_a_part_of_the_lungs_warns_and_strict_refuses_it(
    segmenter: Segmenter, phantom: Phantom, chest: Path, tmp_path: Path
) -> None:
    nib.save(nib.load(chest).slicer[:, :, 14:], chest)
    assert run(segmenter, chest, tmp_path / "out")["status"] == "done"
    report = report_of(tmp_path / "out" / "chest")
    texts = [note["text"] for note in report["notes"] if note["kind"] == "warning"]
    assert any("go on beyond the lowest slice" in text for text in texts)
    assert report["measures"]["lungs"]["total"]["infected_percent"] > 0
    assert report["measures"]["severity"]["grades"] is None
    entry = run(segmenter, chest, tmp_path / "strict", strict=True)
    assert entry["status"] == "refused"
    assert "go on beyond" in entry["message"]
    assert {path.name for path in (tmp_path / "strict").iterdir()} == {"manifest.json"}


def test_strict_refuses_what_is_found_last(weights: Path, chest: Path, phantom: Phantom, tmp_path: Path) -> None:
    """Infection outside of the lungs is known only after the network has worked."""
    everywhere = Segmenter(weights, device="cpu", threshold=1e-6)
    assert run(everywhere, chest, tmp_path / "out")["warnings"] == 1
    assert report_of(tmp_path / "out" / "chest")["notes"][-1]["code"] == "outside_lungs"
    assert run(everywhere, chest, tmp_path / "strict", strict=True)["status"] == "refused"
    assert not (tmp_path / "strict" / "chest").exists()


def test_what_is_removed_is_counted_everywhere(weights: Path, chest: Path, tmp_path: Path) -> None:
    """In the report, its page and the manifest, with the option that keeps it."""
    masks, reports = {}, {}
    for name, keep in (("kept", True), ("out", False)):
        everywhere = Segmenter(weights, device="cpu", threshold=1e-6, keep_outside=keep)
        entry = run(everywhere, chest, tmp_path / name)
        masks[name] = np.asarray(nib.load(tmp_path / name / "chest" / "infection.nii.gz").dataobj)
        reports[name] = report_of(tmp_path / name / "chest")
    removed = reports["out"]["measures"]["removed"]
    gone = int(masks["kept"].sum()) - int(masks["out"].sum())
    assert 0 < gone == removed["outside_body_voxels"] + removed["outside_lungs_voxels"] == entry["removed_voxels"]
    assert removed["outside_body_ml"] == pytest.approx(removed["outside_body_voxels"] * np.prod(SPACING) / 1000)
    assert removed["reason"] is None
    assert "outside_removed" in [note["code"] for note in reports["out"]["notes"]]
    assert "Marks that were removed" in (tmp_path / "out" / "chest" / "report.html").read_text(encoding="utf-8")
    assert reports["kept"]["measures"]["removed"]["outside_body_voxels"] == 0
    assert reports["kept"]["measures"]["removed"]["reason"] == "it was kept, as asked for"


def test_a_report_names_no_folder_where_no_seg_can_be_written(
    segmenter: Segmenter, dicom_chest: Path, tmp_path: Path
) -> None:
    folder = dicom_chest.rename(tmp_path / "Meier_Erika")
    for file in folder.iterdir():
        ds = pydicom.dcmread(file)
        del ds.StudyInstanceUID
        ds.save_as(file)
    out = tmp_path / "out"
    assert run(segmenter, folder, out, lungs=None)["status"] == "done"
    report = report_of(out / "Meier_Erika")
    (note,) = [note for note in report["notes"] if note["code"] == "no_dicom_seg"]
    assert "StudyInstanceUID" in note["text"]
    assert not [path.name for path in (out / "Meier_Erika").iterdir() if path.suffix == ".dcm"]
    assert str(tmp_path) not in json.dumps(report)


def test_pictures_and_pdf_that_dicom_refuses_cost_no_other_result(
    segmenter: Segmenter, dicom_chest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise UserError("no object can refer to this series")

    for name in ("write_dicom_sc", "write_dicom_pdf"):
        monkeypatch.setattr(dicom_results, name, refuse)
    assert run(segmenter, dicom_chest, tmp_path / "out", lungs=None, sc=True, pdf=True)["status"] == "done"
    folder = tmp_path / "out" / dicom_chest.name
    texts = [note["text"] for note in report_of(folder)["notes"] if note["code"] in ("no_dicom_sc", "no_dicom_pdf")]
    assert texts == [f"No DICOM {kind} was written: no object can refer to this series" for kind in ("SC", "PDF")]
    assert all(text in (folder / "report.html").read_text(encoding="utf-8") for text in texts)
    assert {path.name for path in folder.glob("*.dcm")} == {"infection_seg.dcm", "infection_sr.dcm"}
    assert (folder / "report.pdf").is_file()


def test_volumes_of_a_tilted_scan_are_those_of_its_voxels(
    segmenter: Segmenter, phantom: Phantom, tmp_path: Path
) -> None:
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1])
    affine[1, 2] = np.tan(np.radians(20)) * SPACING[2]
    nib.save(nib.Nifti1Image(phantom.image, affine), tmp_path / "tilted.nii.gz")
    run(segmenter, tmp_path / "tilted.nii.gz", tmp_path / "out")
    report = report_of(tmp_path / "out" / "tilted")
    infection = report["measures"]["infection"]
    assert "gantry_tilt" in {note["code"] for note in report["notes"]}
    assert infection["infection_ml"] == pytest.approx(infection["infection_voxels"] * np.prod(SPACING) / 1000, rel=1e-4)
    assert report["measures"]["voxel_size"]["spacing_mm"] == pytest.approx(SPACING)


@pytest.mark.parametrize("part", ["draw_preview", "write_mask"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_half_written_stays_where_one_of_two_writers_ends(
    segmenter: Segmenter, chest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, error: type
) -> None:
    other_at_work = threading.Event()

    def end(*_: Any, **__: Any) -> None:
        assert other_at_work.wait(60)  # so that both run beside each other
        raise error

    def go_on(*arguments: Any, **words: Any) -> Any:
        other_at_work.set()
        return write(*arguments, **words)

    other = "write_mask" if part == "draw_preview" else "draw_preview"
    write = getattr(result, other)
    monkeypatch.setattr(result, part, end)
    monkeypatch.setattr(result, other, go_on)
    threads = threading.active_count()
    (case,) = expand_inputs([chest])
    with pytest.raises(error):
        CaseSegmenter(segmenter).run(case, tmp_path / "out" / case.folder)
    assert list((tmp_path / "out").iterdir()) == []
    assert threading.active_count() == threads
