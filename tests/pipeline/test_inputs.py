from __future__ import annotations

import os
import zipfile
from contextlib import ExitStack
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from scripts.errors import UserError
from scripts.io.dicom.series import list_series
from scripts.pipeline.case import read_case
from scripts.pipeline.inputs import ScanInput, check_choice, check_output, expand_inputs, input_files


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def slices(folder: Path, study: str, names: tuple[str, ...] = ("IM1", "IM2")) -> Path:
    """Writes DICOM headers of one study."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header = pydicom.Dataset()
        header.file_meta, header.StudyInstanceUID = meta, f"1.2.{study}"
        header.save_as(folder / name, enforce_file_format=True)
    return folder


def listed(cases: list[ScanInput], root: Path) -> list[tuple[str, str, str]]:
    return [(case.source.relative_to(root).as_posix(), case.kind, case.folder) for case in cases]


def test_files_and_folders_become_cases(tmp_path: Path) -> None:
    touch(tmp_path, "in/b/1.2.84.nii.gz", "in/a.nrrd", "in/c.PNG", "in/notes.txt", "in/d.mhd", "in/d.raw", "x.nii")
    cases = expand_inputs([tmp_path / "x.nii", tmp_path / "in"], tmp_path / "out")
    assert listed(cases, tmp_path) == [
        ("x.nii", "file", "x"),
        ("in/a.nrrd", "file", "a"),
        ("in/b/1.2.84.nii.gz", "file", "1.2.84"),
        ("in/c.PNG", "file", "c"),
        ("in/d.mhd", "file", "d"),
    ]
    assert [case.name for case in cases] == ["x", "a", "1.2.84", "c", "d"]


def test_inputs_may_be_relative_and_named_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "in/a.nii", "in/b.nii")
    monkeypatch.chdir(tmp_path / "in")
    cases = expand_inputs(["a.nii", tmp_path / "in", "../in/b.nii"], "out")
    assert listed(cases, tmp_path) == [("in/a.nii", "file", "a"), ("in/b.nii", "file", "b")]


def test_equal_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    touch(tmp_path, "p1/base/ct.nii.gz", "p2/base/ct.nii.gz", "p2/later/CT.nii", "p3/base/lung.nii", "base_ct.nii")
    names = ["p1/base/ct.nii.gz", "p2/base/ct.nii.gz", "p2/later/CT.nii", "p3/base/lung.nii", "base_ct.nii"]
    paths = [tmp_path / name for name in names]
    cases = expand_inputs(paths, tmp_path / "out")
    assert [case.folder for case in cases] == [
        "p1_base_ct",
        "p2_base_ct",
        "later_CT",
        "lung",
        f"{tmp_path.name}_base_ct",
    ]
    assert [case.name for case in cases] == ["ct", "ct", "CT", "lung", "base_ct"]
    turned = expand_inputs(paths[::-1], tmp_path / "out")
    assert {case.source: case.folder for case in turned} == {case.source: case.folder for case in cases}
    assert {case.folder for case in expand_inputs([tmp_path], tmp_path / "out")} == {case.folder for case in cases}


def test_equal_names_in_one_folder_keep_their_extension(tmp_path: Path) -> None:
    touch(tmp_path, "in/ct.nii.gz", "in/ct.png", "in/other.png")
    cases = expand_inputs([tmp_path / "in"], tmp_path / "out")
    assert [case.folder for case in cases] == ["ct.nii.gz", "ct.png", "other"]
    touch(tmp_path, "two/CT.nii", "two/ct.nii")
    with pytest.raises(UserError, match=r"CT\.nii and .*ct\.nii: would be given one output folder"):
        expand_inputs([tmp_path / "two"], tmp_path / "out")


def test_results_are_no_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.nii.gz", "in/out/a/infection.nii.gz", "in/out/a/preview.png", "in/.hidden.nii")
    touch(tmp_path, "in/old/a/infection.nii.gz", "in/old/a/report.json", "in/old/a/preview.png", "in/old/a/more/x.png")
    (tmp_path / "in/old/a/report.json").write_text('{"run_key": "x"}')
    touch(tmp_path, "in/.cache/b.nii", "in/__MACOSX/c.nii", "in/._a.nii.gz", "in/infection.nii.gz")
    cases = expand_inputs([tmp_path / "in"], tmp_path / "in" / "out")
    assert [case.folder for case in cases] == ["a", "infection"]
    with pytest.raises(UserError, match="is the output folder, too"):
        expand_inputs([tmp_path / "in"], tmp_path / "in")
    below = expand_inputs([tmp_path / "in" / "out" / "a"], tmp_path / "in" / "out")  # asked for by name
    assert len(below) == 2


def test_a_damaged_zip_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.nii.gz")
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = tmp_path / "in" / f"{method}.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("IM1", bytes(range(256)) * 40)
        content = bytearray(path.read_bytes())
        content[45:75] = bytes(30)
        path.write_bytes(content)
    passed_over: list[str] = []
    assert listed(expand_inputs([tmp_path / "in"], "out", passed_over), tmp_path) == [("in/a.nii.gz", "file", "a")]
    assert passed_over == [f"{tmp_path / 'in'}: 3 damaged .zip were passed over (12.zip, 14.zip, 8.zip)"]
    (case,) = expand_inputs([tmp_path / "in" / "8.zip"], "out")
    with pytest.raises(UserError, match=r"8\.zip: cannot be unpacked"), ExitStack() as stack:
        read_case(case, stack)


def test_a_folder_that_cannot_be_read_is_named_and_refused_within_a_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "in/p1/a.nii.gz", "in/p2/b.nii.gz")
    slices(tmp_path / "in/p3", "1", ("IM1", "IM2"))
    slices(tmp_path / "in/p3/rest", "1", ("IM3", "IM4"))
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name in ("p2", "rest"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    passed_over: list[str] = []
    cases = expand_inputs([tmp_path / "in"], "out", passed_over)
    assert [case.folder for case in cases] == ["a", "p3"]
    assert passed_over == [f"{tmp_path / 'in'}: 2 folders that cannot be read were passed over (p2, p3/rest)"]
    for use in (list_series, lambda _: input_files(cases[1])):
        with pytest.raises(UserError, match=r"p3/rest: cannot be read \(Permission denied\)"):
            use(tmp_path / "in/p3")


def test_an_output_folder_with_other_scans_is_refused(tmp_path: Path) -> None:
    """Where OUTPUT was forgotten the last input took its place, and would not be segmented."""
    touch(tmp_path, "p1/a.nii.gz", "p2/b.nii.gz", "results/logo.png", "results/downloads/1.2/c.nii.gz")
    slices(tmp_path / "p3", "1", ("IM1", "IM2"))
    cases = expand_inputs([tmp_path / "p1", tmp_path / "p3"])
    for output in ("new", "p1", "p3", "results"):
        check_output(tmp_path / output, cases)
    with pytest.raises(UserError, match=r"p2: OUTPUT holds 1 scan beside the inputs \(.*p2/b\.nii\.gz\)"):
        check_output(tmp_path / "p2", cases)
    check_output(tmp_path, cases)  # folders of scans beside those of results
    touch(tmp_path, "p2/manifest.json")
    check_output(tmp_path / "p2", cases)
    with pytest.raises(UserError, match="p3: OUTPUT holds 1 scan"):
        check_output(tmp_path / "p3", cases[:1])


def test_a_choice_that_no_input_can_have_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz")
    slices(tmp_path / "p3", "1", ("IM1", "IM2"))
    files, dicom = expand_inputs([tmp_path / "a.nii.gz"]), expand_inputs([tmp_path / "p3"])
    with pytest.raises(UserError, match="no input is DICOM"):
        check_choice(files, "7", None)
    with pytest.raises(UserError, match="every input is DICOM"):
        check_choice(dicom, None, 2)
    check_choice([*files, *dicom], "7", 2)
    check_choice(files, None, 2)
    check_choice(dicom, "7", None)


def test_what_is_passed_over_in_a_folder_is_listed(tmp_path: Path) -> None:
    slices(tmp_path / "in/p1", "1", ("IM1", "IM2"))
    touch(tmp_path, "in/a.nii.gz", "in/notes.txt", "in/._a.nii.gz", "in/p1/key.png", "in/old/infection.nii.gz")
    (tmp_path / "in/old/report.json").write_text('{"run_key": "1"}')
    (tmp_path / "in/other").mkdir()
    (tmp_path / "in/other/report.json").write_text("[" * 100_000)  # of another program, or made to hurt
    (tmp_path / "in/IM3").write_bytes(bytes(5000))
    (tmp_path / "in/gone").symlink_to(tmp_path / "nowhere")
    with zipfile.ZipFile(tmp_path / "in/notes.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    passed_over: list[str] = []
    cases = expand_inputs([tmp_path / "in"], "out", passed_over)
    assert listed(cases, tmp_path) == [("in/a.nii.gz", "file", "a"), ("in/p1", "dicom", "p1")]
    assert {line.removeprefix(f"{tmp_path / 'in'}: ") for line in passed_over} == {
        "1 links to what is not there were passed over (gone)",
        "1 hidden files were passed over (._a.nii.gz)",
        "1 folders with results of earlier runs were passed over (old)",
        "1 .zip without DICOM were passed over (notes.zip)",
        "3 files that are no scan were passed over (IM3, notes.txt, other/report.json)",
        "1 pictures beside DICOM files were passed over (p1/key.png)",
    }


def test_a_pair_is_one_case(tmp_path: Path) -> None:
    touch(tmp_path, "in/ct.hdr", "in/ct.img")
    assert listed(expand_inputs([tmp_path / "in"], "out"), tmp_path) == [("in/ct.hdr", "file", "ct")]
    assert listed(expand_inputs([tmp_path / "in/ct.img"], "out"), tmp_path) == [("in/ct.img", "file", "ct")]


def test_a_folder_of_one_study_is_the_case(tmp_path: Path) -> None:
    slices(tmp_path / "export/DICOM/S1", "1")
    slices(tmp_path / "export/DICOM/S2", "1", ("a.dcm",))
    touch(tmp_path, "export/DICOMDIR", "export/readme.txt", "export/DICOM/S1/key_image.jpg")
    cases = expand_inputs([tmp_path / "export"], tmp_path / "out")
    assert listed(cases, tmp_path) == [("export", "dicom", "export")]


def test_every_study_below_a_folder_is_a_case(tmp_path: Path) -> None:
    slices(tmp_path / "in/p1/S1", "1")
    slices(tmp_path / "in/p1/S2", "1")
    slices(tmp_path / "in/p2/S1", "2")
    touch(tmp_path, "in/c.nii.gz", "in/pictures/d.png")
    cases = expand_inputs([tmp_path / "in"], tmp_path / "out")
    assert listed(cases, tmp_path) == [
        ("in/c.nii.gz", "file", "c"),
        ("in/p1", "dicom", "p1"),
        ("in/p2/S1", "dicom", "S1"),
        ("in/pictures/d.png", "file", "d"),
    ]


def test_studies_that_lie_in_each_other_stay_together(tmp_path: Path) -> None:
    slices(tmp_path / "in/all", "1")
    slices(tmp_path / "in/all/other", "2")
    touch(tmp_path, "in/c.nii")
    cases = expand_inputs([tmp_path / "in"], tmp_path / "out")
    assert listed(cases, tmp_path) == [("in/all", "dicom", "all"), ("in/c.nii", "file", "c")]


def test_one_study_beside_a_scan_is_a_case_of_its_own(tmp_path: Path) -> None:
    slices(tmp_path / "in", "1")
    touch(tmp_path, "in/c.nii")
    cases = expand_inputs([tmp_path / "in"], tmp_path / "out")
    assert listed(cases, tmp_path) == [("in", "dicom", "in"), ("in/c.nii", "file", "c")]


def test_dicom_files_and_archives_by_name(tmp_path: Path) -> None:
    slices(tmp_path / "in/p1", "1", ("IM1", "1.2.dcm", "b.img"))
    for name, member in (("good.zip", "p1/IM1"), ("other.zip", "notes.txt")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("readme.txt", "x" * 500)
            archive.write(tmp_path / "in/p1/IM1", member) if name == "good.zip" else None
    paths = [tmp_path / name for name in ("in/p1/IM1", "in/p1/1.2.dcm", "in/p1/b.img", "good.zip")]
    assert listed(expand_inputs(paths, "out"), tmp_path) == [
        ("in/p1/IM1", "dicom", "IM1"),
        ("in/p1/1.2.dcm", "dicom", "1.2"),
        ("in/p1/b.img", "dicom", "b"),
        ("good.zip", "zip", "good"),
    ]
    (other,) = expand_inputs([tmp_path / "other.zip"], "out")  # a case of its own, which stops no other
    with pytest.raises(UserError, match=r"other\.zip: no DICOM images; expected: CT images"), ExitStack() as stack:
        read_case(other, stack)
    (tmp_path / "in/p1").rename(tmp_path / "p1")
    cases = expand_inputs([tmp_path], tmp_path / "out")
    assert listed(cases, tmp_path) == [("good.zip", "zip", "good"), ("p1", "dicom", "p1")]


def test_a_data_set_gives_its_images_not_its_labels(make_dataset) -> None:
    folder = make_dataset(cases=2)
    assert [case.folder for case in expand_inputs([folder], "out")] == ["case_00", "case_01"]


def test_what_holds_no_scan_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "in/notes.txt", "in/.scan.nii", "in/sub/DICOMDIR")
    (tmp_path / "in/broken.nii").symlink_to(tmp_path / "gone.nii")
    for path, found in (
        ("in", r"2 files and no scan; 1 links .*\(broken\.nii\); 1 hidden files .*\(\.scan\.nii\)"),
        ("gone.nii", "no such file or folder"),
        ("in/notes.txt", "1 bytes that are no scan"),
    ):
        with pytest.raises(UserError, match=rf"{path}: {found}; expected: \.nii\.gz, .*DICOM"):
            expand_inputs([tmp_path / path], tmp_path / "out")
    with pytest.raises(UserError, match="no input"):
        expand_inputs([], tmp_path / "out")


@pytest.mark.real_data
def test_real_folders(lung_ct_data: Path) -> None:
    cases = expand_inputs([lung_ct_data / "covid_ct_md", lung_ct_data / "lungmask_dicom"], "out")
    assert listed(cases, lung_ct_data) == [
        ("covid_ct_md/P001", "dicom", "P001"),
        ("covid_ct_md/normal001_ct_256.nii.gz", "file", "normal001_ct_256"),
        ("lungmask_dicom", "dicom", "lungmask_dicom"),
    ]
