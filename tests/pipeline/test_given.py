"""What users give beside a scan: lobes in every form, and the report of an earlier scan."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from highdicom.sr import srread
from pydicom import Dataset

from scripts.anatomy.lobes import FIRST_CLASS, LOBES, lungs_of
from scripts.data.phantom.scan import Phantom, make_phantom
from scripts.errors import UserError
from scripts.inference.segmenter import Segmenter
from scripts.io.reading import read_scan
from scripts.io.volume import canonical
from scripts.pipeline.batch import exit_code, record, segment_in_turn
from scripts.pipeline.case import CaseSegmenter, Settings
from scripts.pipeline.given import Given
from scripts.pipeline.inputs import expand_inputs
from scripts.pipeline.job import describe
from scripts.pipeline.lobe_masks import read_lobe_mask
from scripts.pipeline.lung_masks import read_lung_mask
from scripts.pipeline.priors import Prior, find_prior, read_prior

pytestmark = pytest.mark.usefixtures("one_slice_shown")
SPACING = (2.6, 2.5, 7.5)
AFFINE = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1])
CODES = {  # SNOMED CT, PS3.16 CID 4
    "left_upper": "44714003",
    "left_lower": "41224006",
    "right_upper": "42400003",
    "right_middle": "72481006",
    "right_lower": "266005",
}


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(1, shape=(132, 112, 36), spacing=SPACING)


@pytest.fixture(scope="module")
def lobes(phantom: Phantom) -> np.ndarray:
    """The phantom's lungs, which are 1 left and 2 right, cut across: codes of `LOBES`."""
    z = np.arange(36)
    left, right = np.where(z >= 18, 1, 2), np.select([z >= 22, z >= 15], [3, 4], 5)
    codes: np.ndarray = np.select([phantom.lungs == 1, phantom.lungs == 2], [left, right], 0).astype(np.uint8)
    return codes


@pytest.fixture(scope="module")
def segmenter(weights: Path) -> Segmenter:
    return Segmenter(weights, device="cpu", threshold=0.53)


@pytest.fixture
def chest(phantom: Phantom, tmp_path: Path) -> Path:
    return save(tmp_path / "in" / "chest.nii.gz", phantom.image)


@pytest.fixture
def dicom_chest(phantom: Phantom, write_series: Callable[..., np.ndarray], tmp_path: Path) -> Callable[..., Path]:
    """Writes the phantom as a series of a patient and a day."""
    stored = (phantom.image.transpose(2, 1, 0) + 1024).astype(np.uint16)

    def write(name: str, patient: str = "SECRET-ID", day: str = "20200301") -> Path:
        def change(ds: Dataset, _: int) -> None:
            ds.PixelSpacing, ds.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
            ds.PatientID, ds.StudyDate = patient, day

        positions = [(-170, -140, SPACING[2] * k) for k in range(36)]
        write_series(tmp_path / name, positions, stored=stored, series=name, change=change)
        return tmp_path / name

    return write


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def single_masks(folder: Path, lobes: np.ndarray) -> Path:
    for code, name in enumerate(LOBES.values(), 1):
        save(folder / f"{name}.nii.gz", (lobes == code).astype(np.uint8))
    save(folder / "liver.nii.gz", np.ones_like(lobes))
    return folder


def run(segmenter: Segmenter, source: Path, out: Path, **settings: Any) -> dict[str, Any]:
    """The report, or the manifest's entry of a case that was refused."""
    model = CaseSegmenter(segmenter, Settings(**settings))
    cases = expand_inputs([source], out)
    manifest = record(segment_in_turn(model, cases, out), describe(model), cases, out)
    if exit_code(manifest):
        entry: dict[str, Any] = manifest["cases"][0]
        return entry
    report: dict[str, Any] = json.loads((out / cases[0].folder / "report.json").read_text())
    return report


@pytest.mark.usefixtures("graded_whatever_lies_outside")
def test_every_form_of_lobes_gives_the_same_numbers(
    segmenter: Segmenter, chest: Path, lobes: np.ndarray, turned: Callable[..., nib.Nifti1Image], tmp_path: Path
) -> None:
    total = np.where(lobes > 0, lobes + np.uint8(FIRST_CLASS - 1), 0).astype(np.uint8)
    total[0] = 51  # another organ
    nib.save(turned(nib.Nifti1Image(total, AFFINE), "SRA"), tmp_path / "total.nii.gz")  # stored in another order
    save(tmp_path / "by_case" / "chest.nii.gz", lobes)
    forms = [tmp_path / "total.nii.gz", single_masks(tmp_path / "masks", lobes), tmp_path / "by_case"]
    forms.append(single_masks(tmp_path / "masks_by_case" / "chest", lobes).parent)
    files = [Given.find(None, form, None, "chest").files() for form in forms]
    assert [len(found) for found in files] == [1, 5, 1, 5]
    found = [run(segmenter, chest, tmp_path / f"out{k}", lobes=form)["measures"] for k, form in enumerate(forms)]
    assert all(one == found[0] for one in found)
    parts, lungs = found[0]["lobes"]["parts"], found[0]["lungs"]
    mask = np.asarray(nib.load(tmp_path / "out0" / "chest" / "infection.nii.gz").dataobj) > 0
    for code, part in enumerate(parts.values(), 1):
        assert part["lobe_voxels"] == (lobes == code).sum()
        assert part["infection_voxels"] == (mask & (lobes == code)).sum()
    assert lungs["left"]["lung_voxels"] == parts["left_upper"]["lobe_voxels"] + parts["left_lower"]["lobe_voxels"]
    assert lungs["total"]["infection_voxels"] == sum(part["infection_voxels"] for part in parts.values())
    assert found[0]["lobes"]["score_of_25"] == sum(part["score_of_5"] for part in parts.values()) > 0
    page = (tmp_path / "out0" / "chest" / "report.html").read_text()
    assert f"CT severity score: {found[0]['lobes']['score_of_25']} of 25" in page


def test_nothing_is_said_of_lobes_without_a_mask(segmenter: Segmenter, chest: Path, tmp_path: Path) -> None:
    assert run(segmenter, chest, tmp_path / "out")["measures"]["lobes"] is None
    page = (tmp_path / "out" / "chest" / "report.html").read_text()
    assert "Lobes" not in page
    assert "of 25" not in page


@pytest.mark.usefixtures("graded_whatever_lies_outside")
def test_lungs_of_ones_own_stay_those_of_the_report(
    segmenter: Segmenter, chest: Path, phantom: Phantom, lobes: np.ndarray, tmp_path: Path
) -> None:
    lungs = np.array([0, 2, 1], np.uint8)[phantom.lungs]
    lobes = np.where(lobes == 4, 0, lobes).astype(np.uint8)
    given = {"lungs": save(tmp_path / "lungs.nii.gz", lungs), "lobes": save(tmp_path / "lobes.nii.gz", lobes)}
    measures = run(segmenter, chest, tmp_path / "out", **given)["measures"]
    assert measures["lungs"]["total"]["lung_voxels"] == (lungs > 0).sum()
    assert measures["lobes"]["parts"]["right_middle"] is None
    assert measures["lobes"]["reason"] == "the lobe mask lacks the right middle lobe"
    assert "The CT severity score is not stated" in (tmp_path / "out" / "chest" / "report.html").read_text()


def test_lobes_of_one_lung_are_not_parted(tmp_path: Path) -> None:
    """The lung lies in the middle of the image, where a mask of both would be parted."""
    lobes = np.zeros((60, 60, 60), np.uint8)
    lobes[10:50, 8:52, 5:30], lobes[10:50, 8:52, 30:55] = 2, 1
    affine = np.diag([-4.0, -4, 4, 1])
    scan = read_scan(save(tmp_path / "scan.nii.gz", np.zeros(lobes.shape, np.int16), affine))
    given = Given(lobes=save(tmp_path / "lobes.nii.gz", lobes, affine))
    lungs, _ = given.read_masks(scan, None, None)  # type: ignore[arg-type]  # of a network only
    assert lungs is not None
    assert (lungs.right_ml, lungs.left_ml) == (0, pytest.approx(88000 * 64 / 1000))
    assert (lungs.doubts, lungs.notes) == (["No right lung was found."], [])


def test_masks_with_a_slope_mean_their_real_values(chest: Path, lobes: np.ndarray, tmp_path: Path) -> None:
    scan = read_scan(chest)
    plain = save(tmp_path / "plain.nii.gz", lungs_of(lobes))
    scaled = []
    for name, codes in (("lobes", lobes), ("lungs", lungs_of(lobes))):
        image = nib.Nifti1Image(codes.astype(np.int16) * 10 + 50, AFFINE)
        image.header.set_slope_inter(0.1, -5)
        nib.save(image, tmp_path / f"{name}.nii.gz")
        scaled.append(tmp_path / f"{name}.nii.gz")
    np.testing.assert_array_equal(read_lobe_mask(scaled[0], scan), canonical(lobes, AFFINE))
    np.testing.assert_array_equal(read_lung_mask(scaled[1], scan).mask, read_lung_mask(plain, scan).mask)
    with pytest.raises(UserError, match="holds the values 1, 2, 3, 4, 5; expected") as caught:
        read_lung_mask(scaled[0], scan)
    assert str(caught.value).count("expected") == 1


def test_wrong_lobes_are_refused_in_one_line(
    segmenter: Segmenter, chest: Path, lobes: np.ndarray, tmp_path: Path
) -> None:
    moved = AFFINE.copy()
    moved[0, 3] = 3
    masks = single_masks(tmp_path / "masks", lobes)
    save(masks / "lung_lower_lobe_left.nii.gz", (lobes > 0).astype(np.uint8))
    for path, said in (
        (save(tmp_path / "moved.nii.gz", lobes, moved), "moved.nii.gz: lies up to 3 mm off its image"),
        (save(tmp_path / "flipped.nii.gz", lobes[::-1].copy()), "flipped.nii.gz: the left lobes lie at the right; exp"),
        (masks, "lung_lower_lobe_left.nii.gz has"),
        (tmp_path / "in", "no lobe mask for other"),
    ):
        source = chest if "other" not in said else save(tmp_path / "in2" / "other.nii.gz", np.asarray(lobes))
        entry = run(segmenter, source, tmp_path / "out" / path.stem, lobes=path)
        assert entry["status"] == "refused"
        assert said in entry["message"]
        assert "\n" not in entry["message"]


@pytest.mark.usefixtures("graded_whatever_lies_outside")
def test_the_sr_repeats_lobes_and_score(
    segmenter: Segmenter, dicom_chest: Callable[..., Path], lobes: np.ndarray, tmp_path: Path
) -> None:
    study = dicom_chest("study")
    affine = AFFINE.copy()
    affine[:3, 3] = 170, 140, 0
    path = save(tmp_path / "lobes.nii.gz", lobes, affine)
    measures = run(segmenter, study, tmp_path / "out", lobes=path)["measures"]
    content = srread(tmp_path / "out" / "study" / "infection_sr.dcm").content
    groups = {group.finding_type.value: group for group in content.get_image_measurement_groups()}
    for name, part in measures["lobes"]["parts"].items():
        found = [float(one.value) for one in groups[CODES[name]].get_measurements()]
        assert found == [part["lobe_ml"], part["infection_ml"], part["infected_percent"], part["score_of_5"]]
        assert groups[CODES[name]].finding_sites[0].topographical_modifier is None
    both, total = content.get_image_measurement_groups()[0], measures["lungs"]["total"]
    assert float(both.get_measurements()[-1].value) == total["infected_percent"] > 0
    whole, *_ = content.get_volumetric_roi_measurement_groups()
    assert {one.name.value: float(one.value) for one in whole.get_measurements()}["score_25"] == (
        measures["lobes"]["score_of_25"]
    )


def test_a_scan_has_not_changed_since_itself(segmenter: Segmenter, chest: Path, tmp_path: Path) -> None:
    first = run(segmenter, chest, tmp_path / "first")
    assert first["change"] is None
    for prior in (tmp_path / "first", tmp_path / "first" / "chest", tmp_path / "first" / "chest" / "report.json"):
        assert find_prior(prior, "chest") == tmp_path / "first" / "chest" / "report.json"
    report = run(segmenter, chest, tmp_path / "second", prior=tmp_path / "first")
    change = report["change"]
    assert change["infection"]["change_ml"] == change["lungs"]["total"]["change_percent"] == 0
    assert {row["state"] for row in change["lesions"]["rows"]} == {"stable"}
    assert len(change["lesions"]["rows"]) == report["measures"]["lesions"]["listed_count"] > 0
    assert [row["number"] for row in change["lesions"]["rows"]] == [
        row["prior_number"] for row in change["lesions"]["rows"]
    ]
    assert (change["same_patient"], change["date"], change["prior"]["name"]) == (None, None, "chest")
    assert ("prior_patient", "assumption") in {(note["code"], note["kind"]) for note in report["notes"]}


def test_a_scan_that_ends_within_the_lungs_is_not_compared_without_a_warning(small_report: Callable[..., Any]) -> None:
    earlier, now = small_report(), deepcopy(small_report()["measures"])
    scan = SimpleNamespace(facts={})
    assert Prior(earlier, None, []).compare(scan, now)[1] == []
    earlier["measures"] = deepcopy(now)
    earlier["measures"]["lungs"]["cuts"] = ["The lungs go on."]
    change, (note,) = Prior(earlier, None, []).compare(scan, now)
    assert change["reason"] in note.text
    assert (note.code, note.kind) == ("prior_lungs", "warning")
    assert note.text.endswith("are not comparable: one of the scans ends within the lungs.")


def test_another_patient_is_refused(segmenter: Segmenter, dicom_chest: Callable[..., Path], tmp_path: Path) -> None:
    earlier = run(segmenter, dicom_chest("first"), tmp_path / "out")
    assert "SECRET-ID" not in json.dumps(earlier)
    assert earlier["case"]["patient"].keys() == {"salt", "pbkdf2_sha256"}
    assert earlier["case"]["patient"]["salt"] not in (tmp_path / "out" / "first" / "report.html").read_text()
    prior = tmp_path / "out" / "first"
    later = run(segmenter, dicom_chest("later", day="20200321"), tmp_path / "out", prior=prior)
    assert later["change"]["same_patient"] is True
    assert (later["change"]["prior"]["date"], later["change"]["date"], later["change"]["days"]) == (
        "2020-03-01",
        "2020-03-21",
        20,
    )
    other = dicom_chest("other", patient="ANOTHER", day="20200201")
    entry = run(segmenter, other, tmp_path / "out", prior=prior)
    assert "report.json: is of another patient (the PatientID differs); expected: " in entry["message"]
    assert not (tmp_path / "out" / "other").exists()
    forced = run(segmenter, other, tmp_path / "forced", prior=prior, force=True)
    assert forced["change"]["same_patient"] is False
    assert {note["code"] for note in forced["notes"] if note["kind"] == "warning"} >= {"prior", "prior_date"}
    assert "They are of different patients." in (tmp_path / "forced" / "other" / "report.html").read_text()


def test_another_threshold_and_other_weights_are_refused(
    segmenter: Segmenter, weights: Path, make_checkpoint: Callable[..., Path], chest: Path, tmp_path: Path
) -> None:
    run(segmenter, chest, tmp_path / "first")
    others = {
        "threshold 0.53, this one with 0.54": Segmenter(weights, device="cpu", threshold=0.54),
        "other weights": Segmenter(make_checkpoint(tmp_path / "m" / "model.pt", seed=1), device="cpu", threshold=0.53),
    }
    for said, other in others.items():
        entry = run(other, chest, tmp_path / said[:5], prior=tmp_path / "first")
        assert f"was made with {said}; expected: " in entry["message"]


def test_what_is_no_report_is_refused(segmenter: Segmenter, chest: Path, phantom: Phantom, tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text('{"by": "a radiologist"}')
    entry = run(segmenter, chest, tmp_path / "out", prior=mine)
    assert "mine.json: no report of this command; expected: a report.json" in entry["message"]
    with pytest.raises(UserError, match="no earlier report for chest; expected"):
        find_prior(tmp_path / "in", "chest")
    save(tmp_path / "unknown.nii.gz", phantom.image, np.diag([-1.0, -1, 1, 1]))
    run(segmenter, chest, tmp_path / "out")
    entry = run(segmenter, tmp_path / "unknown.nii.gz", tmp_path / "out", prior=tmp_path / "out" / "chest")
    assert "unknown.nii.gz: the voxel size is unknown; expected with --prior: volumes in ml" in entry["message"]
    run(segmenter, tmp_path / "unknown.nii.gz", tmp_path / "out")
    with pytest.raises(UserError, match=r"report\.json: the voxel size is unknown; expected with --prior"):
        read_prior(tmp_path / "out" / "unknown" / "report.json")


CHANGES: list[tuple[list[str | int], Any, str]] = [
    (["format"], 2, "format is 2; expected: 1"),
    (["measures"], [], "measures is []; expected: names and values"),
    (["measures", "infection", "infection_ml"], "many", "measures.infection.infection_ml is 'many'; expected: "),
    (["measures", "infection", "infection_ml"], -1.0, "measures.infection.infection_ml is -1.0; expected: "),
    (["measures", "lungs", "left", "infected_percent"], float("nan"), "left.infected_percent is nan; expected: "),
    (["measures", "lungs", "box_index"], [[0, 1]], "measures.lungs.box_index is [[0, 1]]; expected: "),
    (["measures", "lesions", "lesions", 0, "centroid_index"], [1.0], "lesions.0.centroid_index is [1.0]; expected: "),
    (["case", "facts", "date"], "2020-13-01", "case.facts.date is '2020-13-01'; expected: "),
    (["model", "operating_point"], None, "model.operating_point is None; expected: names and values"),
]


def test_a_changed_report_is_refused(segmenter: Segmenter, chest: Path, tmp_path: Path) -> None:
    report = run(segmenter, chest, tmp_path / "out")
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(report))
    assert read_prior(path) == report
    for keys, value, said in CHANGES:
        changed = deepcopy(report)
        part: Any = changed
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
        path.write_text(json.dumps(changed))
        with pytest.raises(UserError) as refused:
            read_prior(path)
        assert str(refused.value).startswith(f"{path}: ")
        assert said in str(refused.value)
