"""Labels in MONAI Label's folder of scans: taken, replaced and checked before a training;
in its own environment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-monailabel/bin/python"
AFFINE = np.array([[-0.7, 0, 0, 90.0], [0, -0.7, 0, 110.0], [0, 0, 5.0, -200.0], [0, 0, 0, 1.0]])
SHAPE = (32, 36, 6)
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [
    pytest.mark.monailabel,
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="MONAI Label's environment is absent"),
]

OPEN = """
opened = lambda: Studies(sys.argv[1], extensions=("*.nii.gz", "*.nii", "*.nrrd"))
studies = opened()
save = lambda file: studies.save_label("a", file, "final", {})
"""
HALF_A_COPY = """
import shutil
def half(source, target, **_):
    content = Path(source).read_bytes()
    Path(target).write_bytes(content[: len(content) // 2])
    os._exit(9)
shutil.copyfile = half
"""
CHANGED_FROM_BOTH_SIDES = """
import threading, time
watched = Studies(sys.argv[1], extensions=("*.nii.gz", "*.nii"), auto_reload=True)
failures = []
threading.excepthook = lambda failure: failures.append(repr(failure.exc_value))
def read():
    while not done.is_set():
        assert watched.get_image_uri("a")
        assert watched.status()["completed"] == 1 and len(watched.datalist()) == 1
done = threading.Event()
reader = threading.Thread(target=read)
reader.start()
for number in range(120):
    shutil.copyfile(Path(sys.argv[1]) / "a.nii.gz", sys.argv[2])
    watched.add_image(f"more_{number}", sys.argv[2], {})
    if number % 2:
        watched.remove_image(f"more_{number}")
done.set()
reader.join()
(Path(sys.argv[1]) / "labels/final/a.nii.gz").unlink()
for _ in range(300):
    if not watched.datalist():
        break
    time.sleep(0.1)
print(json.dumps([failures, watched.datalist(), len(watched.list_images())]))
os._exit(0)  # the watching thread holds the process
"""
REMOTE = """
from types import SimpleNamespace
from scripts.monai_label.serving.dicom_studies import DicomStudies
web = SimpleNamespace(base_url="http://archive")
opened = lambda: DicomStudies(web, {}, sys.argv[1])
image, label = map(Path, sys.argv[2:4])
"""
KILLED_WHILE_LISTING = """
child = os.fork()  # before a list is opened: its watching thread may hold the lock that a copy would wait for
if not child:
    studies = opened()
    studies._keep_image("1.2", image, {})
    json.dumps = lambda *_, **__: os._exit(9)
    studies.update_image_info("1.2", {"epistemic_entropy": 0.5})
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
print(json.dumps(list(opened().json()["objects"])), flush=True)
"""
CHANGED_BY_TWO = """
studies = opened()
studies._keep_image("1.2", image, {})
training = opened()
studies.update_image_info("1.2", {"epistemic_entropy": 0.5})
training._replace_label("1.2", label, "final", {"SeriesInstanceUID": "1.3"})
entry = opened().json()["objects"]["1.2"]
print(json.dumps([entry["image"]["info"]["epistemic_entropy"], entry["labels"]["final"]["info"]["SeriesInstanceUID"]]))
"""
KILLED_BEFORE_THE_LIST = "json.dumps = lambda *_, **__: os._exit(9)\n"
KILLED_AND_LISTED = """
child = os.fork()
if not child:
    exec(sys.argv[3])
    save(sys.argv[2])
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
print(json.dumps(opened().datalist()))
"""


@pytest.fixture
def run(in_label_environment: Run) -> Run:
    """Runs lines in MONAI Label's environment, `studies` being open, in a process of their own."""
    return lambda code, studies, *words: in_label_environment(OPEN + code, studies, *words)


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """A folder with one scan and its final label."""
    folder = tmp_path / "studies"
    (folder / "labels/final").mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.full(SHAPE, -800, np.int16), AFFINE), folder / "a.nii.gz")
    nib.save(nib.Nifti1Image(marked(), AFFINE), folder / "labels/final/a.nii.gz")
    return folder


def marked() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:9, 10:20, 2] = 1
    return mask


def write_nrrd(path: Path, mask: np.ndarray) -> Path:
    image = sitk.GetImageFromArray(mask.T)
    image.SetSpacing((0.7, 0.7, 5.0))
    image.SetOrigin((-90.0, -110.0, -200.0))
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("moment", [HALF_A_COPY, KILLED_BEFORE_THE_LIST], ids=["copy", "list"])
def test_a_process_killed_while_a_label_is_replaced_leaves_a_whole_label(moment, run, studies, tmp_path) -> None:
    new = tmp_path / "new.nii.gz"
    nib.save(nib.Nifti1Image(1 - marked(), AFFINE), new)
    good = (studies / "labels/final/a.nii.gz").read_bytes()
    done = run(KILLED_AND_LISTED, studies, new, moment)
    assert done.returncode == 0, done.stderr
    assert (studies / "labels/final/a.nii.gz").read_bytes() in (good, new.read_bytes())
    listed = json.loads(done.stdout.splitlines()[-1])
    assert [Path(one["label"]).name for one in listed] == ["a.nii.gz"]


def test_a_process_killed_while_a_scan_is_uploaded_leaves_no_part_of_it(run, studies, tmp_path) -> None:
    upload = tmp_path / "upload.nii.gz"
    nib.save(nib.Nifti1Image(np.full(SHAPE, 40, np.int16), AFFINE), upload)
    code = """
child = os.fork()
if not child:
    exec(sys.argv[3])
    studies.add_image("new", sys.argv[2], {})
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
listed = opened().list_images()
print(json.dumps([listed, opened().add_image("new", sys.argv[2], {})]))
"""
    done = run(code, studies, upload, HALF_A_COPY)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [["a"], "new"]
    assert (studies / "new.nii.gz").read_bytes() == upload.read_bytes()


@pytest.mark.parametrize(
    ("code", "wanted"), [(KILLED_WHILE_LISTING, ["1.2"]), (CHANGED_BY_TWO, [0.5, "1.3"])], ids=["killed", "two"]
)
def test_the_list_of_scans_of_a_dicomweb_server_stays_whole(
    code: str, wanted: list[object], in_label_environment: Run, studies: Path, tmp_path: Path
) -> None:
    words = [tmp_path / "cache", studies / "a.nii.gz", studies / "labels/final/a.nii.gz"]
    done = in_label_environment(REMOTE + code + "sys.stdout.flush(); os._exit(0)  # watching threads hold it", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == wanted


def test_a_nrrd_label_on_the_scans_grid_replaces_the_earlier_one(run, studies, tmp_path) -> None:
    label = write_nrrd(tmp_path / "new.nrrd", marked())
    code = "save(sys.argv[2]); print(json.dumps([studies.datalist(), opened().datalist()]))"
    done = run(code, studies, label)
    assert done.returncode == 0, done.stderr
    (case,), again = json.loads(done.stdout.splitlines()[-1])
    assert Path(case["label"]).name == "a.nrrd"
    assert [path.name for path in (studies / "labels/final").iterdir() if path.is_file()] == ["a.nrrd"]
    assert again == [case]


def test_a_bad_label_replaces_no_good_one(run, studies, tmp_path) -> None:
    files = [tmp_path / name for name in ("small.nrrd", "shifted.nii.gz", "label.mha", "label.png")]
    write_nrrd(files[0], marked()[..., :5])
    nib.save(nib.Nifti1Image(marked(), AFFINE + np.outer([0, 0, 1, 0], [0, 0, 0, 30.0])), files[1])
    for file in files[2:]:
        file.write_bytes(b"anything")
    good = (studies / "labels/final/a.nii.gz").read_bytes()
    said = refusals(run, "save(word)", studies, *files)
    for text, phrase in zip(said, ("36 x 5 voxels", "lies up to 30 mm off", ".mha; ", ".png; "), strict=True):
        assert text.startswith("the label of a: ")
        assert phrase in text
        assert "expected: " in text
        assert "\n" not in text
    assert [path.name for path in (studies / "labels/final").iterdir()] == ["a.nii.gz"]
    assert (studies / "labels/final/a.nii.gz").read_bytes() == good


def test_labels_put_there_by_hand_are_checked_before_a_training(run, studies, tmp_path) -> None:
    label, files = (
        studies / "labels/final/a.nii.gz",
        [tmp_path / f"{name}.nii.gz" for name in ("good", "empty", "small")],
    )
    for file, mask in zip(files, (marked(), 0 * marked(), marked()[:-1]), strict=True):
        nib.save(nib.Nifti1Image(mask, AFFINE), file)
    check = f"Path({str(label)!r}).write_bytes(Path(word).read_bytes()); say(check_annotations(studies.datalist()))"
    assert refusals(run, check, studies, *files) == [
        [],
        [f"{label}: no voxel is marked as infection"],
        f"{label}: has 31 x 36 x 6 voxels "
        "(left-right, front-back, head-foot); expected: those of a.nii.gz, 32 x 36 x 6",
    ]


def refusals(run: Run, line: str, studies: Path, *words: object) -> list[object]:
    """Runs a line for each of some words; what it says, or the detail of its answer 400."""
    code = f"""
said = []
say = said.append
for word in sys.argv[2:]:
    try:
        {line}
    except HTTPException as error:
        said.append(error.detail if error.status_code == 400 else str(error))
print(json.dumps(said))
"""
    done = run(code, studies, *words)
    assert done.returncode == 0, done.stderr
    found: list[object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_requests_and_the_watched_folder_do_not_end_each_other(run: Run, studies: Path, tmp_path: Path) -> None:
    done = run(CHANGED_FROM_BOTH_SIDES, studies, tmp_path / "upload.nii.gz")
    assert done.returncode == 0, done.stderr[-3000:]
    failures, listed, images = json.loads(done.stdout)
    assert failures == []
    assert listed == []  # the label that was removed by hand
    assert images == 61


def test_an_id_in_use_is_refused_and_nothing_is_changed(run: Run, studies: Path, tmp_path: Path) -> None:
    upload = tmp_path / "upload.nii"
    nib.save(nib.Nifti1Image(np.full(SHAPE, 40, np.int16), AFFINE), upload)
    code = """
shutil.copyfile(Path(sys.argv[1]) / "a.nii.gz", Path(sys.argv[1]) / "by_hand.nii.gz")
said = []
for name in ("a", "by_hand", "new"):
    try:
        said.append(studies.add_image(name, sys.argv[2], {}))
    except HTTPException as error:
        said.append([error.status_code, error.detail])
print(json.dumps([said, sorted(studies.list_images()), studies.get_labeled_images()]))
"""
    good = (studies / "a.nii.gz").read_bytes()
    done = run(code, studies, upload)
    assert done.returncode == 0, done.stderr
    said, images, labelled = json.loads(done.stdout.splitlines()[-1])
    refused = "a scan with this id is stored already; expected: another id, or that scan deleted first"
    assert said == [[409, f"a: {refused}"], [409, f"by_hand: {refused}"], "new"]
    assert (images, labelled) == (["a", "by_hand", "new"], ["a"])
    assert (studies / "a.nii.gz").read_bytes() == good
    assert not (studies / "a.nii").exists()


def test_two_processes_keep_each_others_labels(run: Run, studies: Path, tmp_path: Path) -> None:
    label = tmp_path / "label.nii.gz"
    nib.save(nib.Nifti1Image(marked(), AFFINE), label)
    code = """
batch = opened()
studies.save_label("a", sys.argv[2], "final", {"reader": "Dr. A"})
batch.save_label("a", sys.argv[2], "original", {})
studies.update_image_info("a", {"checked": True})
print(json.dumps(opened().json()["objects"]["a"]))
"""
    done = run(code, studies, label)
    assert done.returncode == 0, done.stderr
    entry = json.loads(done.stdout.splitlines()[-1])
    assert sorted(entry["labels"]) == ["final", "original"]
    assert entry["labels"]["final"]["info"]["reader"] == "Dr. A"
    assert entry["image"]["info"]["checked"] is True
