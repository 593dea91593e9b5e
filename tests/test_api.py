"""The package from Python: every form of a scan gives one mask, and nothing is written unasked."""

from __future__ import annotations

import gc
import json
import logging
import pickle
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

import scripts
from scripts import InfectionSegmenter, UserError
from scripts.files import CACHE
from scripts.inference.backends import choice
from scripts.inference.ood import OODScore
from scripts.inference.segmenter import Segmenter
from scripts.pipeline.case import CaseSegmenter, Settings
from scripts.pipeline.inputs import expand_inputs
from scripts.pipeline.job import segment_case
from scripts.version import bundle_version

AFFINE = np.array([[0, 0, -2.5, 40], [-2.0, 0, 0, 30], [0, 5.0, 0, -100], [0, 0, 0, 1]])
"""Axes to posterior, superior and left: stored otherwise than the network sees it."""


@pytest.fixture(scope="module")
def model(weights: Path) -> InfectionSegmenter:
    return InfectionSegmenter(weights, device="cpu", threshold=0.53)


@pytest.fixture
def scan(make_scan: Callable[..., tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A scan in a folder that stays as it is."""
    path, _ = make_scan(affine=AFFINE, shape=(36, 8, 40))
    monkeypatch.chdir(path.parent)
    before = sorted(path.parent.iterdir())
    yield path
    assert sorted(path.parent.iterdir()) == before


def as_array(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(path)
    return np.asarray(image.dataobj), image.affine


@pytest.mark.parametrize("form", [str, nib.load, sitk.ReadImage, as_array])
def test_every_form_gives_the_mask_of_the_file(
    form: Callable[[Path], Any], model: InfectionSegmenter, scan: Path
) -> None:
    expected = model.predict(scan)
    found = model.predict(form(scan))
    np.testing.assert_array_equal(found.mask, expected.mask)
    assert 0 < found.mask.mean() < 1
    assert found.mask.dtype == np.uint8
    np.testing.assert_allclose(found.affine, AFFINE)
    assert found.measures == expected.measures
    assert found.warnings == expected.warnings
    assert found.probability is None


def test_the_model_is_chosen_by_its_name(shipped: Path, scan: Path) -> None:
    for name, file in (("compact", "model.pt"), ("full", "full.pt")):
        report = InfectionSegmenter(device="cpu", model=name).predict(scan).report()
        assert report["model"]["weights"] == file
        assert report["settings"]["model"]["name"] == name
    with pytest.raises(UserError, match="expected: one of them"):
        InfectionSegmenter(shipped / "full.pt", device="cpu", model="full")


def test_limits_of_a_call_are_its_own(model: InfectionSegmenter, scan: Path) -> None:
    with pytest.raises(UserError, match=r"voxels in a slice .* at most 1,000 \(--limit slice_voxels=N or "):
        model.predict(scan, limits=["slice_voxels=1e3"])
    with pytest.raises(UserError, match="--limit slices=1: expected: NAME=NUMBER"):
        model.predict(scan, limits=["slices=1"])
    assert model.predict(scan).mask.shape == (36, 8, 40)


def test_results_are_those_of_the_command(model: InfectionSegmenter, weights: Path, scan: Path, tmp_path: Path) -> None:
    """`save` writes what `segment` writes; only times, and what the command needs to resume,
    differ."""
    command = CaseSegmenter(Segmenter(weights, "cpu", threshold=0.53), Settings(probability=True))
    written = tmp_path / "out" / "scan"
    assert segment_case(command, expand_inputs([scan])[0], written)["status"] == "done"
    result = model.predict(scan, probability=True)
    result.save(tmp_path / "api")
    assert {path.name for path in (tmp_path / "api").iterdir()} == {path.name for path in written.iterdir()}
    for name in ("infection.nii.gz", "probability.nii.gz", "preview.png"):
        assert (tmp_path / "api" / name).read_bytes() == (written / name).read_bytes(), name
    reports = [json.loads((folder / "report.json").read_text()) for folder in (written, tmp_path / "api")]
    for report in reports:
        del report["created"], report["timings_s"], report["run_key"]
    assert reports[0] == reports[1]
    assert result.report()["measures"] == reports[0]["measures"]
    with pytest.raises(UserError, match="--overwrite"):
        result.save(tmp_path / "api")
    result.save(tmp_path / "api", overwrite=True)


def test_an_image_in_memory_can_be_saved(model: InfectionSegmenter, scan: Path, tmp_path: Path) -> None:
    result = model.predict(as_array(scan), name="mine")
    assert result.save(tmp_path / "out")["case"]["name"] == "mine"
    for folder in ("", None):
        with pytest.raises(UserError, match=r"folder is ('|None).*; expected: a path"):
            result.save(folder)  # type: ignore[arg-type]
    written = nib.load(tmp_path / "out" / "infection.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), result.mask)
    np.testing.assert_allclose(written.affine, AFFINE)


def test_threads_that_share_a_model_get_what_each_would_alone(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Scores and agreement are collected while the network works: of one scan, no other."""
    score = OODScore({"decoder.bridge": 32}, (0.0,) * 32, (1.0,) * 32, ((0.0,) * 32,), 1e9)
    weights = make_checkpoint(tmp_path / "model.pt", familiarity=score.as_metadata())
    model = InfectionSegmenter(weights, device="cpu", threshold=0.53, flips=2)
    volumes = [np.random.default_rng(seed).integers(-1000, 100, (36, 40, 9 + seed), np.int16) for seed in range(4)]

    def answer(hu: np.ndarray) -> tuple[Any, ...]:
        result = model.predict((hu, np.diag([-5.0, -5.0, 5.0, 1.0])))
        return result.mask.tobytes(), result.ood, result.measures["infection"], result.warnings

    alone = [answer(hu) for hu in volumes]
    assert len({one[1]["distance"] for one in alone}) == len(volumes)
    with ThreadPoolExecutor(len(volumes)) as pool:
        together = list(pool.map(answer, volumes * 3))
    assert together == alone * 3


def test_a_copy_for_another_process_has_the_same_settings(weights: Path, scan: Path) -> None:
    own = InfectionSegmenter(weights, "cpu", 0.53, 40.0, 2, "torch", "fp32", keep_outside=True)
    copied = pickle.loads(pickle.dumps(own))
    expected, found = own.predict(scan), copied.predict(scan)
    np.testing.assert_array_equal(found.mask, expected.mask)
    assert (found.model, found.settings) == (expected.model, expected.settings)


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        ("torch", torch.float64),
        ("torch", torch.bfloat16),
        pytest.param("openvino", torch.bfloat16, marks=pytest.mark.skipif(not find_spec("openvino"), reason="absent")),
    ],
)
def test_defaults_of_the_caller_change_no_result(
    backend: str, dtype: torch.dtype, weights: Path, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "openvino_installed", lambda: True)
    monkeypatch.setenv(CACHE, "off")  # what is compiled among these defaults is not kept either
    expected = InfectionSegmenter(weights, device="cpu", backend=backend).predict(scan, probability=True).levels
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
            model = InfectionSegmenter(weights, device="cpu", backend=backend)
            np.testing.assert_array_equal(model.predict(scan, probability=True).levels, expected)
        np.testing.assert_array_equal(model.predict(scan, probability=True).levels, expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_callers_random_numbers_and_loggers_stay(weights: Path, scan: Path) -> None:
    numbers, handlers = torch.get_rng_state(), list(logging.getLogger("nibabel.global").handlers)
    InfectionSegmenter(weights, device="cpu").predict(scan)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert handlers
    assert logging.getLogger("nibabel.global").handlers == handlers


def test_a_disk_that_says_no_is_a_user_error(model: InfectionSegmenter, scan: Path) -> None:
    result = model.predict(scan)
    with pytest.raises(UserError, match="a folder that can be written"):
        result.save(scan / "out")


def test_probability_on_request(weights: Path, scan: Path) -> None:
    """It stays where marks are removed, outside of the body."""
    model = InfectionSegmenter(weights, device="cpu", threshold=0.53, keep_outside=True)
    result = model.predict(scan, probability=True)
    assert result.probability is not None
    assert result.probability.dtype == np.float32
    assert result.probability.shape == result.mask.shape
    clear = np.abs(result.probability - 0.53) > 1 / 255
    np.testing.assert_array_equal((result.probability > 0.53)[clear], result.mask[clear] > 0)


def test_a_probability_is_calibrated_as_the_metadata_state(
    make_checkpoint: Callable[..., Path], scan: Path, tmp_path: Path
) -> None:
    """Values only: the mask stays, and the note says where it begins among them. With other views
    than those that were calibrated the values are the network's own."""
    rows = [{"probability": one, "observed": one**2, "voxels": 9} for one in (0.1, 0.4, 0.5, 0.6, 0.9)]
    make_checkpoint(tmp_path / "model.pt", calibration={"curve": rows})
    plain, calibrated = (
        InfectionSegmenter(tmp_path / "model.pt", device="cpu", threshold=0.53, flips=views).predict(
            scan, probability=True
        )
        for views in (2, 1)
    )
    own = InfectionSegmenter(make_checkpoint(tmp_path / "own.pt"), device="cpu", threshold=0.53)
    expected = own.predict(scan, probability=True)
    assert expected.probability is not None
    assert calibrated.probability is not None
    means = [0, *(row["probability"] for row in rows)]
    by_hand = np.interp(expected.probability, means, np.square(means))
    assert by_hand.std() > 1 / 255
    np.testing.assert_allclose(calibrated.probability, by_hand, atol=0.51 / 255)
    np.testing.assert_array_equal(calibrated.mask, expected.mask)
    texts = [
        next(note["text"] for note in result.report()["notes"] if note["code"] == "probability")
        for result in (calibrated, expected, plain)
    ]
    assert [("is calibrated" in text) for text in texts] == [True, False, False]
    begins = float(texts[0].split("begins at ")[1].rstrip("."))
    assert begins == pytest.approx(0.25 + 0.3 * 0.11, abs=2 / 255)  # 0.53 lies between 0.5 and 0.6
    assert "begins at 0.530" in texts[1]


def test_files_of_an_archive_stay_as_long_as_the_result(
    model: InfectionSegmenter,
    write_series: Callable[..., np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The DICOM SEG, which `save` makes, is derived from the source's headers."""
    write_series(tmp_path / "study")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for file in (tmp_path / "study").iterdir():
            archive.write(file, file.name)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    result = model.predict(tmp_path / "study.zip", intensity="hu")
    np.testing.assert_array_equal(result.mask, model.predict(tmp_path / "study", intensity="hu").mask)
    result.save(tmp_path / "out")
    assert (tmp_path / "out" / "infection_seg.dcm").is_file()
    del result
    gc.collect()
    assert list(scratch.iterdir()) == []


def test_what_is_no_single_scan_is_refused(model: InfectionSegmenter, scan: Path, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    for name in ("a.nii.gz", "b.nii.gz"):
        (tmp_path / "two" / name).write_bytes(scan.read_bytes())
    with pytest.raises(UserError, match="2 scans; expected: one"):
        model.predict(tmp_path / "two")
    with pytest.raises(UserError, match="an INPUT is empty"):
        model.predict("")  # the scan lies in the current folder
    with pytest.raises(UserError, match="affine"):
        model.predict(as_array(scan)[0])
    for device in ("abacus", "meta"):
        with pytest.raises(UserError, match=f"device is '{device}'"):
            InfectionSegmenter(device=device)
    for weights in ("", 3):
        with pytest.raises(UserError, match=r"weights is ('|a int).*; expected: a path"):
            InfectionSegmenter(weights)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"volume": "two"}, "volume is 'two'"),
        ({"volume": 0}, "volume is 0"),
        ({"intensity": None}, "intensity is None"),
        ({"lungs": ""}, "lungs is ''"),
        ({"lobes": ""}, "lobes is ''"),
        ({"prior": ""}, "prior is ''"),
        ({"lungs": np.zeros((2, 2))}, "lungs is a ndarray; expected: a path"),
        ({"lobes": 3}, "lobes is a int"),
        ({"prior": {}}, "prior is a dict"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_by_name(
    setting: dict[str, Any], expected: str, model: InfectionSegmenter, scan: Path
) -> None:
    with pytest.raises(UserError, match=expected):
        model.predict(scan, **setting)


@pytest.mark.parametrize("affine", ["abc", [[1, 2], [3]], {"a": 1}, torch.zeros(4, 4, device="meta")])
def test_what_is_no_affine_is_refused(affine: Any, model: InfectionSegmenter, scan: Path) -> None:
    with pytest.raises(UserError, match="no affine"):
        model.predict((as_array(scan)[0], affine))


def test_a_series_and_a_volume_may_be_numbers_of_any_kind(
    model: InfectionSegmenter, write_series: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    write_series(tmp_path / "study")
    np.testing.assert_array_equal(
        model.predict(tmp_path / "study", series=3).mask, model.predict(tmp_path / "study", series="3").mask
    )
    hu = np.random.default_rng(0).integers(-1000, 100, (30, 30, 2, 2), np.int16)
    second = model.predict((hu, np.diag([-5.0, -5.0, 5.0, 1.0])), volume=np.int64(2))
    np.testing.assert_array_equal(second.mask, model.predict((hu[..., 1], np.diag([-5.0, -5.0, 5.0, 1.0]))).mask)


def test_the_package_is_light_and_lazy(bundle_root: Path) -> None:
    code = "import sys, scripts; print(scripts.__version__, *{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=bundle_root, capture_output=True, text=True, check=True)
    version, *modules = done.stdout.split()
    assert version == bundle_version()
    assert not {"torch", "monai", "numpy", "nibabel", "SimpleITK", "scipy", "matplotlib", "pandas"} & set(modules)
    assert {"InfectionSegmenter", "Result", "UserError"} <= set(dir(scripts))
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        scripts.Segmentor  # noqa: B018


SEGMENT = """
import sys
from pathlib import Path
from scripts.commands.segment import segment
weights, scan, out, *unneeded = sys.argv[1:]
segment([Path(scan)], Path(out), weights=Path(weights), device="cpu", quiet=True)
print(*(name for name in unneeded if name in sys.modules))
"""
UNNEEDED = ("monai", "ignite", "pandas", "skimage", "highdicom", "matplotlib.pyplot", "scipy.stats", "scipy.signal")


def test_segment_imports_no_package_that_it_does_without(
    weights: Path, scan: Path, bundle_root: Path, tmp_path: Path
) -> None:
    words = [str(word) for word in (weights, scan, tmp_path / "out", *UNNEEDED)]
    command = [sys.executable, "-c", SEGMENT, *words]
    done = subprocess.run(command, cwd=bundle_root, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr[-2000:]


WITHOUT_EXTRAS = """
import sys
for name in ("pydicom", "highdicom", "reportlab", "ignite", "fire", "yaml", "tensorboard"):
    sys.modules[name] = None
from scripts import InfectionSegmenter, UserError
weights, scan, study, out = sys.argv[1:]
segmenter = InfectionSegmenter(weights, device="cpu")
segmenter.predict(scan).save(out)
try:
    segmenter.predict(study)
except UserError as error:
    print(error)
"""


def test_files_but_dicom_need_no_extra(
    weights: Path, scan: Path, write_series: Callable[..., np.ndarray], bundle_root: Path, tmp_path: Path
) -> None:
    write_series(tmp_path / "study")
    words = [str(weights), str(scan), str(tmp_path / "study"), str(tmp_path / "out")]
    command = [sys.executable, "-c", WITHOUT_EXTRAS, *words]
    done = subprocess.run(command, cwd=bundle_root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "pip install 'lung-infection-ct[dicom]'" in done.stdout
    assert (tmp_path / "out" / "infection.nii.gz").is_file()


def test_the_snippets_of_the_documents_run(
    model: InfectionSegmenter, weights: Path, scan: Path, bundle_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the README and the first of docs/python.md,
    with the name that the package has here."""
    monkeypatch.setattr("scripts.inference.shipped.MODELS", weights.parent)
    for document in ("README.md", "docs/python.md"):
        snippet = re.findall(r"```python\n(.*?)```", (bundle_root / document).read_text(), re.DOTALL)[0]
        exec(snippet.replace("lung_infection_ct", "scripts"), {})
