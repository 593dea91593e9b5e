"""The command as a lab runs it: files in, results out, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image

import scripts.pipeline.case
from scripts.__main__ import main
from scripts.data.phantom.dataset import write_phantom_dataset
from scripts.pipeline.manifest_schema import ManifestContent
from scripts.schema import check_content

Command = Callable[..., "Done"]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five synthetic chests."""
    folder = tmp_path_factory.mktemp("phantoms") / "set"
    write_phantom_dataset(folder, cases=5, size=96, slices=20)
    return sorted((folder / "COVID-19-CT-Seg_20cases").glob("*.nii.gz"))


def command_line(weights: Path, *words: object) -> list[str]:
    by_name = ("--device", "cpu", "--backend", "torch", "--precision", "fp32")  # here and in subprocesses alike
    return [sys.executable, "-m", "scripts", "segment", "--weights", str(weights), *by_name, *map(str, words)]


@dataclass
class Done:
    """How the command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def segment(weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line in this process."""

    def run(*words: object, weights: Path = weights) -> Done:
        monkeypatch.setattr(sys, "argv", command_line(weights, *words)[2:])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    return run


def test_a_scan_gets_mask_report_picture_and_manifest(segment: Command, phantoms: list[Path], tmp_path: Path) -> None:
    done = segment(phantoms[0], tmp_path / "out", "--probability")
    assert done.returncode == 0, done.stderr
    assert "DEMONSTRATION WEIGHTS" in done.stderr
    folder = tmp_path / "out" / "phantom_001"
    names = {"infection.nii.gz", "probability.nii.gz", "preview.png", "report.html", "report.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"phantom_001", "manifest.json"}
    scan, mask = nib.load(phantoms[0]), nib.load(folder / "infection.nii.gz")
    np.testing.assert_array_equal(mask.affine, scan.affine)
    assert mask.get_data_dtype() == np.uint8
    report = json.loads((folder / "report.json").read_text())
    voxels = int(np.asarray(mask.dataobj).sum())
    assert report["measures"]["infection"]["infection_voxels"] == voxels > 0
    volume = voxels * abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    assert report["measures"]["infection"]["infection_ml"] == pytest.approx(volume, rel=1e-4)
    assert report["demonstration"].startswith("DEMONSTRATION WEIGHTS")
    assert "DEMONSTRATION WEIGHTS" in (folder / "report.html").read_text()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    check_content(ManifestContent, manifest, "manifest.json")
    assert manifest["finished"]
    assert manifest["model"]["synthetic"] is True
    assert manifest["model"]["weights_sha256"] == report["model"]["weights_sha256"]
    (case,) = manifest["cases"]
    assert case["status"] == "done"
    assert set(case["files"]) == names
    assert set(case["timings_s"]) >= {"read", "check", "lungs", "network", "back to grid", "measure", "write", "report"}


def test_formats_keep_their_kind_and_grid(segment: Command, phantoms: list[Path], tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    image = sitk.ReadImage(str(phantoms[1]))
    sitk.WriteImage(image, str(inputs / "a.nrrd"))
    sitk.WriteImage(image, str(inputs / "b.mha"))
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    Image.fromarray(pixels).save(inputs / "c.png")
    done = segment(inputs, phantoms[1], tmp_path / "out")
    assert done.returncode == 0, done.stderr
    expected = np.asarray(nib.load(tmp_path / "out" / "phantom_002" / "infection.nii.gz").dataobj)
    for path in (tmp_path / "out" / "a" / "infection.nrrd", tmp_path / "out" / "b" / "infection.mha"):
        mask = sitk.ReadImage(str(path))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mask).T, expected)
        assert (mask.GetOrigin(), mask.GetSpacing(), mask.GetDirection()) == (
            image.GetOrigin(),
            image.GetSpacing(),
            image.GetDirection(),
        )
    with Image.open(tmp_path / "out" / "c" / "infection.png") as mask:
        assert mask.size == (80, 60)
        assert set(np.unique(np.asarray(mask))) <= {0, 255}
    report = json.loads((tmp_path / "out" / "c" / "report.json").read_text())
    assert "infection_ml" not in report["measures"]["infection"]
    assert "taken for -1250 to 250 HU" in json.dumps(report["notes"])


def test_one_bad_case_does_not_stop_the_others(segment: Command, phantoms: list[Path], tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    inputs.mkdir()
    (inputs / "a_broken.nii.gz").write_bytes(phantoms[0].read_bytes()[:2000])
    nib.save(nib.Nifti1Image(np.full((40, 40, 5), 100, np.int16), np.diag([-1.0, -1, 1, 1])), inputs / "b_bright.nii")
    (inputs / "c_good.nii.gz").write_bytes(phantoms[0].read_bytes())
    done = segment(inputs, tmp_path / "out")
    assert done.returncode == 3
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "a_broken.nii.gz" in errors[0]
    assert "b_bright.nii" in errors[1]
    assert all("expected" in line for line in errors)
    assert "Traceback" not in done.stderr
    statuses = {case["name"]: case["status"] for case in manifest_of(tmp_path)["cases"]}
    assert statuses == {"a_broken": "refused", "b_bright": "refused", "c_good": "done"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"c_good", "manifest.json"}


def manifest_of(tmp_path: Path) -> dict[str, list[dict[str, object]]]:
    manifest: dict[str, list[dict[str, object]]] = json.loads((tmp_path / "out" / "manifest.json").read_text())
    return manifest


def test_exit_codes_of_wrong_use(segment: Command, phantoms: list[Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, phantom in zip("ab", phantoms, strict=False):
        (tmp_path / folder).mkdir()
        shutil.copy(phantom, tmp_path / folder)
    for words, text in (
        ((phantoms[0],), "Missing argument 'INPUT'"),
        ((tmp_path / "empty", tmp_path / "out"), "expected: "),
        ((phantoms[0], tmp_path / "out", "--threshold", "3"), "threshold is 3"),
        ((phantoms[0], tmp_path / "out", "--intensity", "window:5,1"), "LO < HI"),
        ((phantoms[0], phantoms[1]), "phantom_002.nii.gz: a file; expected: INPUT... OUTPUT"),
        ((phantoms[0], tmp_path / "out", "--device", "abacus"), "device is 'abacus'"),
        ((phantoms[0], tmp_path / "out", "--lungs", tmp_path / "none"), "none: no such file or folder"),
        ((phantoms[0], tmp_path / "out", "--lobes", tmp_path / "none"), "expected: a lobe mask, or a folder of them"),
        ((phantoms[0], tmp_path / "out", "--prior", tmp_path / "none"), "expected: a report.json, or a folder of them"),
        (
            (*phantoms[:2], tmp_path / "out", "--prior", phantoms[0]),
            "one report for 2 scans; expected: one scan, or a folder of results",
        ),
        (
            (phantoms[0], tmp_path / "out", "--treshold", "0.3"),
            "No such option: --treshold (Possible options: --threshold",
        ),
        ((phantoms[0], tmp_path / "out", "--volume", "1.5"), "Invalid value for '--volume'"),
        ((phantoms[0], tmp_path / "out", "--series", "7"), "no input is DICOM; expected"),
        (("", tmp_path / "out"), "an empty word after fp32; expected: a value, or the option left out"),
        ((phantoms[0], tmp_path / "out", "--lungs", ""), "an empty word after --lungs"),
        ((phantoms[0], tmp_path / "out", "--stow", "pacs.example/dicom"), "no address of a server"),
        ((phantoms[0], tmp_path / "out", "--stow", "https://"), "no address of a server"),
        ((*phantoms[:2], tmp_path / "out", "--lungs", phantoms[0]), "one mask for 2 scans; expected"),
        ((*phantoms[:2], tmp_path / "out", "--lobes", phantoms[0]), "one mask for 2 scans; expected"),
        ((tmp_path / "a", tmp_path / "b"), "b: OUTPUT holds 1 scan beside the inputs"),
    ):
        done = segment(*words)
        assert done.returncode == 2, done.stderr
        assert text in done.stderr
        assert "Traceback" not in done.stderr
    done = segment(phantoms[0], tmp_path / "out", weights=tmp_path / "none.pt")
    assert done.returncode == 2
    assert "no such weights" in done.stderr
    assert "--weights" in done.stderr
    assert "make demo" in done.stderr
    assert not (tmp_path / "out").exists()


def test_strict_refuses_what_warns(segment: Command, phantoms: list[Path], tmp_path: Path) -> None:
    few = nib.load(phantoms[0]).slicer[..., 8:10]
    nib.save(few, tmp_path / "few.nii.gz")
    assert segment(tmp_path / "few.nii.gz", tmp_path / "out").returncode == 0
    report = json.loads((tmp_path / "out" / "few" / "report.json").read_text())
    assert "warning" in {note["kind"] for note in report["notes"]}
    done = segment(tmp_path / "few.nii.gz", tmp_path / "strict", "--strict")
    assert done.returncode == 2
    assert "without warnings" in done.stderr
    assert not (tmp_path / "strict" / "few").exists()


def test_results_of_other_settings_are_not_overwritten_silently(
    segment: Command, phantoms: list[Path], tmp_path: Path
) -> None:
    assert segment(phantoms[0], tmp_path / "out").returncode == 0
    mask = tmp_path / "out" / "phantom_001" / "infection.nii.gz"
    before = mask.read_bytes()
    again = segment(phantoms[0], tmp_path / "out")
    assert again.returncode == 0
    assert "found done" in again.stdout
    other = segment(phantoms[0], tmp_path / "out", "--threshold", "0.9")
    assert other.returncode == 2
    assert "--overwrite" in other.stderr
    assert mask.read_bytes() == before
    assert segment(phantoms[0], tmp_path / "out", "--threshold", "0.9", "--overwrite").returncode == 0
    assert mask.read_bytes() != before


def test_a_folder_with_something_else_is_left_alone(segment: Command, phantoms: list[Path], tmp_path: Path) -> None:
    thesis = tmp_path / "out" / "phantom_001" / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("mine")
    done = segment(phantoms[0], tmp_path / "out", "--overwrite")
    assert done.returncode == 2
    assert "holds other results or files" in done.stderr
    assert thesis.read_text() == "mine"
    assert list(thesis.parent.iterdir()) == [thesis]


def test_equal_base_names_get_folders_of_their_own(segment: Command, phantoms: list[Path], tmp_path: Path) -> None:
    for number, hospital in enumerate(("north", "south")):
        (tmp_path / "in" / hospital).mkdir(parents=True)
        (tmp_path / "in" / hospital / "scan.nii.gz").write_bytes(phantoms[number].read_bytes())
    assert segment(tmp_path / "in", tmp_path / "out").returncode == 0
    cases = manifest_of(tmp_path)["cases"]
    folders = [str(case["folder"]) for case in cases]
    assert len(set(folders)) == 2
    for case, phantom in zip(cases, phantoms, strict=False):
        mask = nib.load(tmp_path / "out" / str(case["folder"]) / "infection.nii.gz")
        np.testing.assert_array_equal(mask.affine, nib.load(phantom).affine)


def test_ones_own_lungs_decide_on_shares(segment: Command, phantoms: list[Path], tmp_path: Path) -> None:
    scan = nib.load(phantoms[0])
    lungs = np.zeros(scan.shape, np.uint8)
    half = scan.shape[0] // 2
    turned = nib.aff2axcodes(scan.affine)[0] == "L"
    lungs[:half], lungs[half:] = (1, 2) if turned else (2, 1)
    nib.save(nib.Nifti1Image(lungs, scan.affine), tmp_path / "lungs.nii.gz")
    done = segment(phantoms[0], tmp_path / "out", "--lungs", tmp_path / "lungs.nii.gz")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "phantom_001" / "report.json").read_text())
    assert report["measures"]["infection"].get("outside_lungs_voxels", 0) == 0
    moved = scan.affine.copy()
    moved[0, 3] += 3
    nib.save(nib.Nifti1Image(lungs, moved), tmp_path / "moved.nii.gz")
    done = segment(phantoms[0], tmp_path / "other", "--lungs", tmp_path / "moved.nii.gz")
    assert done.returncode == 2
    assert "lies up to 3 mm off its image, affine" in done.stderr


@pytest.mark.slow
def test_a_batch_that_was_killed_is_finished_by_the_same_command(
    segment: Command, weights: Path, phantoms: list[Path], bundle_root: Path, tmp_path: Path
) -> None:
    whole = segment(phantoms[0].parent, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    line = command_line(weights, phantoms[0].parent, tmp_path / "out")
    process = subprocess.Popen(line, cwd=bundle_root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while len(list((tmp_path / "out").glob("phantom_*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("phantom_*/report.json")}
    assert 2 <= len(stamps) < 5
    done = segment(phantoms[0].parent, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("found done") == len(stamps)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }
    for scan in phantoms:
        name = scan.name.removesuffix(".nii.gz")
        for file in ("infection.nii.gz", "preview.png"):
            assert (tmp_path / "out" / name / file).read_bytes() == (tmp_path / "whole" / name / file).read_bytes()


def test_a_name_that_is_no_utf_8_is_segmented(segment: Command, phantoms: list[Path], tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"odd\xff.nii.gz")
    shutil.copy(phantoms[0], odd)
    done = segment(odd, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert r"odd\udcff: done" in done.stdout
    assert r"odd\udcff" in (tmp_path / "out" / os.fsdecode(b"odd\xff") / "report.html").read_text(encoding="utf-8")


def test_ctrl_c_leaves_nothing_half_done(
    segment: Command, write_series: Callable[..., np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither results nor what a .zip unpacked to."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    write_series(tmp_path / "study")
    archive = shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "study")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.setattr("scripts.commands.progress.CaseProgress.step", interrupt)
    done = segment(archive, tmp_path / "out", "--intensity", "hu")
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_sigterm_ends_in_one_line(
    segment: Command, phantoms: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.commands.progress.CaseProgress.step", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    done = segment(phantoms[0], tmp_path / "out", "--quiet")
    assert done.returncode == 130
    kept = f"0 of 1 cases ended; their results are kept in {tmp_path / 'out'}"
    assert done.stderr.splitlines()[-1] == f"stopped: {kept}; the same command resumes"
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_readers_bug_is_a_refusal_of_that_case(
    segment: Command, phantoms: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    odd = tmp_path / "in" / "odd\x1b[2J.nii.gz"
    shutil.copy(phantoms[0], odd)
    shutil.copy(phantoms[1], tmp_path / "in" / "notes.txt")
    read = scripts.pipeline.case.read_scan

    def stumble(path: Path, volume: int | None = None) -> object:
        if path == odd:
            raise ZeroDivisionError("of the reader\nwith two lines")
        return read(path, volume)

    monkeypatch.setattr("scripts.pipeline.case.read_scan", stumble)
    done = segment(tmp_path / "in", phantoms[1], tmp_path / "out")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    shown = str(odd).replace("\x1b", r"\x1b")
    refusal = (
        f"error: {shown}: cannot be read (ZeroDivisionError: of the reader with two lines); expected: a complete scan"
    )
    assert refusal in done.stderr.splitlines()
    (line,) = manifest_of(tmp_path)["passed_over"]
    assert line == f"{tmp_path / 'in'}: 1 files that are no scan were passed over (notes.txt)"
    assert line in done.stderr


def test_a_scan_without_infection_gets_valid_results(segment: Command, phantoms: list[Path], tmp_path: Path) -> None:
    done = segment(phantoms[0], tmp_path / "out", "--smallest_lesion_mm3", "1e9")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "phantom_001"
    assert not np.asarray(nib.load(folder / "infection.nii.gz").dataobj).any()
    measures = json.loads((folder / "report.json").read_text())["measures"]
    assert measures["infection"]["present"] is False
    assert measures["infection"]["infection_ml"] == 0
    assert (folder / "preview.png").stat().st_size > 10_000


def test_quiet_says_errors_only(segment: Command, phantoms: list[Path], tmp_path: Path) -> None:
    done = segment(phantoms[0], tmp_path / "out", "--quiet")
    assert done.returncode == 0
    assert done.stdout == ""
    assert done.stderr.startswith("DEMONSTRATION WEIGHTS")
    assert len(done.stderr.splitlines()) == 1
