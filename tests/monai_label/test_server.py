"""The real MONAI Label server on loopback, around a narrow network, in MONAI Label's own
environment.

First what it does for an annotator; then what a request must not be able to do: run code, change
weights, serve a foreign page. Both are in one file because a server takes half a minute to start.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import re
import shutil
import subprocess
import tarfile
import time
import warnings
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
import SimpleITK as sitk  # noqa: N813

from scripts.inference.metadata import read_metadata
from scripts.io.reading import read_grid
from scripts.monai_label import checkpoints
from scripts.monai_label.deployment import NAME
from scripts.monai_label.request_values import SPECIAL_KEYS
from tests.bundle_runner import run_command, run_inference
from tests.fuzz import mutations
from tests.fuzz.targets import TARGETS
from tests.monai_label.conftest import AS_TESTED

Server = Any  # tests/monai_label/conftest.py

pytestmark = [pytest.mark.monailabel, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / ".venv-monailabel/monailabel/plugins"
MODEL, FULL = f"{NAME}_demo", f"{NAME}_full"
UPLOADS = 60


def assert_same(answer: requests.Response, expected: Path, folder: Path) -> np.ndarray:
    """The server's file is the mask of `run inference`: voxels, type, every field of the header."""
    assert answer.status_code == 200, answer.text
    (folder / "answer.nii.gz").write_bytes(answer.content)
    found, wanted = nib.load(folder / "answer.nii.gz"), nib.load(expected)
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(wanted.dataobj))
    assert found.header.binaryblock == wanted.header.binaryblock
    mask = np.asarray(found.dataobj)
    assert 0 < mask.mean() < 1
    return mask


def test_info_names_the_models_and_says_what_they_are(server: Server) -> None:
    info = requests.get(f"{server.url}/info/", timeout=60).json()
    assert list(info["models"]) == [MODEL, FULL]
    assert info["models"][FULL]["labels"] == {"infection": 1}
    model = info["models"][MODEL]
    assert model["labels"] == {"infection": 1}
    assert model["dimension"] == 3
    assert model["type"] == "segmentation"
    assert model["config"]["threshold"] == 0.5
    assert model["config"]["smallest_lesion_mm3"] == 0.0
    assert model["config"]["keep_outside"] is False
    assert model["config"]["model_filename"] == ["model.pt"]
    assert model["description"].startswith("DEMONSTRATION ONLY, trained on synthetic scans")
    assert list(info["trainers"]) == [MODEL]
    assert set(info["strategies"]) == {"random", "first", "epistemic"}
    assert set(info["scoring"]) == {"epistemic"}


@pytest.mark.parametrize(
    "image",
    [
        "phantom_001",
        "turned",
        "one_slice",
        pytest.param("normal001_ct_256", marks=pytest.mark.real_data),
    ],
)
def test_the_mask_is_that_of_run_inference(image: str, server: Server, tmp_path: Path) -> None:
    scan = server.deployment / "studies" / f"{image}.nii.gz"
    if not scan.exists():
        pytest.skip("LUNG_CT_DATA is unset: it names the folder of real CT (docs/data.md)")
    expected = run_inference(scan, server.deployment / "active" / "model.pt", tmp_path / "masks")
    assert_same(server.infer(image), expected, tmp_path)
    assert_same(server.infer(upload=scan), expected, tmp_path)


def test_the_full_model_segments_and_does_not_learn(server: Server, tmp_path: Path) -> None:
    scan = server.deployment / "studies" / "phantom_001.nii.gz"
    expected = run_inference(scan, server.deployment / "app/model" / FULL / "models/model.pt", tmp_path / "masks")
    full = replace(server, model=FULL)
    for one in (full, server, full):  # in turns
        answer = one.infer("phantom_001")
        if one is full:
            assert_same(answer, expected, tmp_path)
        else:
            assert gzip.decompress(answer.content) != gzip.decompress(expected.read_bytes())
    refused = server.post(f"train/{FULL}", {"device": "cpu"}, run_sync=True)
    assert refused.status_code == 400
    assert FULL in refused.json()["detail"]


def test_requests_at_the_same_time_get_the_same_answer(server: Server) -> None:
    with ThreadPoolExecutor(4) as annotators:
        answers = list(annotators.map(lambda _: server.infer("phantom_001"), range(8)))
    assert [one.status_code for one in answers] == [200] * 8, [one.text[:200] for one in answers]
    assert len({gzip.decompress(one.content) for one in answers}) == 1


def test_what_an_annotator_turns_is_what_run_inference_knows(server: Server, tmp_path: Path) -> None:
    scan = server.deployment / "studies" / "phantom_001.nii.gz"
    weights = server.deployment / "active" / "model.pt"
    settings = {"threshold": 0.52, "smallest_lesion_mm3": 4000}
    plain = run_inference(scan, weights, tmp_path / "plain")
    turned = run_inference(scan, weights, tmp_path / "turned", **settings)
    assert nib.load(turned).get_fdata().sum() < nib.load(plain).get_fdata().sum()
    assert_same(server.infer("phantom_001", **settings), turned, tmp_path)
    assert_same(server.infer("phantom_001", **{key: str(value) for key, value in settings.items()}), turned, tmp_path)
    assert_same(server.infer("phantom_001"), plain, tmp_path)
    kept = run_inference(scan, weights, tmp_path / "kept", keep_outside=True)
    assert nib.load(kept).get_fdata().sum() > nib.load(plain).get_fdata().sum()
    for keep in (True, "true"):
        assert_same(server.infer("phantom_001", keep_outside=keep), kept, tmp_path)


def test_3d_slicer_gets_nrrd_on_the_same_grid(server: Server, tmp_path: Path) -> None:
    scan = server.deployment / "studies" / "phantom_001.nii.gz"
    expected = run_inference(scan, server.deployment / "active" / "model.pt", tmp_path / "masks")
    answer = server.infer("phantom_001", result_extension=".nrrd", result_dtype="uint8")
    assert answer.status_code == 200, answer.text
    (tmp_path / "answer.nrrd").write_bytes(answer.content)
    found, wanted = sitk.ReadImage(str(tmp_path / "answer.nrrd")), sitk.ReadImage(str(expected))
    assert found.GetPixelID() == sitk.sitkUInt8
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(wanted))
    for name in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(found, name)(), getattr(wanted, name)(), atol=1e-4, err_msg=name)


def test_bad_requests_are_answered_in_words_and_the_server_lives(server: Server, tmp_path: Path) -> None:
    def refused(answer: requests.Response, status: int, text: str) -> None:
        assert answer.status_code == status, answer.text
        assert text in answer.json()["detail"]
        assert "Traceback" not in answer.text
        assert server.alive()

    refused(server.infer("nobody"), 404, "nobody: no such image; expected: an id that")
    refused(server.infer("/etc/hostname"), 404, "/etc/hostname: no such image")
    own = server.deployment.parent / "home" / "tmp" / "mine.nii.gz"  # beside the uploads, and none
    own.write_bytes(b"mine")
    refused(server.infer(str(own)), 404, "mine.nii.gz: no such image")
    assert own.read_bytes() == b"mine"
    own.unlink()
    broken = tmp_path / "broken.nii.gz"
    whole = (server.deployment / "studies" / "phantom_001.nii.gz").read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    refused(server.infer(upload=broken), 400, "damaged gzip")
    broken.write_bytes(b"not an image")
    refused(server.infer(upload=broken), 400, "cannot be read")
    flat = tmp_path / "flat.nii.gz"
    nib.save(nib.Nifti1Image(np.full((40, 36), -900, np.int16), np.eye(4)), flat)
    refused(server.infer(upload=flat), 400, "one flat slice; expected: a volume")
    bright = tmp_path / "bright.nii.gz"
    nib.save(nib.Nifti1Image(np.full((40, 36, 4), 200, np.int16), np.eye(4)), bright)
    refused(server.infer(upload=bright), 400, "expected: HU")
    refused(server.infer("phantom_001", threshold=7), 400, "threshold is 7; expected: a probability between 0 and 1")
    refused(server.post("activelearning/psychic", {}), 400, "no such strategy 'psychic'")
    refused(server.save_label("nobody", flat), 404, "nobody: no such image")
    refused(server.save_label("phantom_001", flat), 400, "has 40 x 36 x 1 voxels")
    refused(server.save_label("phantom_001", broken), 400, "the label of phantom_001: cannot be read")
    outside = requests.put(
        f"{server.url}/datastore/image",
        params={"image": "../outside"},
        files={"file": ("a.nii.gz", whole)},
        timeout=60,
    )
    refused(outside, 400, "'../outside' is no plain name")
    assert not list(server.deployment.glob("outside*"))
    nothing = server.post(f"train/{MODEL}", {"device": "cpu"}, run_sync=True)
    refused(nothing, 400, "0 scans have a final label and none is left to train on")
    assert not list((server.deployment / "studies").rglob("labels/**/*.nii.gz"))
    assert len(checkpoints.names(server.deployment)) == 1


def test_the_most_uncertain_scan_comes_first_and_scoring_changes_no_mask(server: Server, tmp_path: Path) -> None:
    before = server.infer("phantom_002").content
    answer = server.post("scoring/epistemic", {"device": "cpu", "simulation_size": 3, "max_workers": 1}, run_sync=True)
    assert answer.status_code == 200, answer.text
    status = requests.get(f"{server.url}/datastore/", params={"output": "all"}, timeout=60).json()
    scores = {name: entry["image"]["info"]["epistemic_entropy"] for name, entry in status["objects"].items()}
    assert len(scores) == answer.json()["executed"] >= 5
    assert all(0 < score <= -np.log(1 / np.e) / np.e for score in scores.values())  # -p log p is at most 1/e
    chosen = server.post("activelearning/epistemic", {}).json()
    assert chosen["id"] == max(scores, key=scores.__getitem__)
    (tmp_path / "a.nii.gz").write_bytes(before)
    (tmp_path / "b.nii.gz").write_bytes(server.infer("phantom_002").content)
    np.testing.assert_array_equal(
        nib.load(tmp_path / "a.nii.gz").get_fdata(), nib.load(tmp_path / "b.nii.gz").get_fdata()
    )


def train_stats(server: Server) -> dict[str, Any]:
    """What 3D Slicer and OHIF draw their bars from: the first of the models."""
    stats: dict[str, Any] = next(iter(requests.get(f"{server.url}/info/", timeout=60).json()["train_stats"].values()))
    return stats


def label(server: Server, image: str, folder: Path) -> None:
    """Saves the server's own answer, corrected with the broadest of brushes, as the final label."""
    (folder / f"{image}.nii.gz").write_bytes(server.infer(image).content)
    mask = nib.load(folder / f"{image}.nii.gz")
    array = np.asarray(mask.dataobj).copy()
    array[: array.shape[0] // 2] = 0
    nib.save(nib.Nifti1Image(array, mask.affine, mask.header), folder / f"{image}.nii.gz")
    answer = server.save_label(image, folder / f"{image}.nii.gz")
    assert answer.status_code == 200, answer.text


def snapshot(server: Server) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (server.deployment / "checkpoints").rglob("model.*")}


def test_the_model_learns_from_labels_and_goes_back(server: Server, tmp_path: Path) -> None:
    for image in ("phantom_001", "phantom_003"):
        label(server, image, tmp_path)
    assert (server.deployment / "studies" / "labels" / "final" / "phantom_001.nii.gz").exists()
    first, before, masks = checkpoints.active(server.deployment), snapshot(server), server.infer("phantom_002").content

    # As the documents say, waiting for the end.
    request = {"max_epochs": 2, "device": "cpu", "val_split": 0.34}
    answer = server.post(f"train/{MODEL}", request, run_sync=True)
    assert answer.status_code == 200, answer.text
    second = checkpoints.active(server.deployment)
    metadata = read_metadata(server.deployment / "active" / "model.pt")
    assert second != first
    stats = train_stats(server)
    assert stats["epoch"] == 2
    assert stats["best_metric"] == pytest.approx(metadata["figures"]["validation"]["val_mean_dice"], abs=1e-6)
    assert re.fullmatch(r"0:\d\d:\d\d", stats["total_time"])
    assert stats.items() <= answer.json().items()
    assert f"dice-{metadata['figures']['validation']['val_mean_dice']:.3f}" in second
    assert (metadata["data"]["training_cases"], metadata["data"]["validation_cases"]) == (1, 1)
    scans = metadata["data"]["training_scans"] + metadata["data"]["validation_scans"]
    assert sorted(scans) == ["phantom_001.nii.gz", "phantom_003.nii.gz"]
    assert metadata["data"]["started_from"] == {
        "checkpoint": first,
        "sha256": read_metadata(server.deployment / "checkpoints" / first / "model.pt")["sha256"],
    }
    assert {key: value for key, value in snapshot(server).items() if first in key} == before
    learned = server.infer("phantom_002")
    assert learned.content != masks
    scan = server.deployment / "studies" / "phantom_002.nii.gz"
    weights = server.deployment / "active" / "model.pt"
    threshold = telling_threshold(server, "phantom_002", tmp_path)
    expected = run_inference(scan, weights, tmp_path / "second", threshold=threshold)
    assert_same(server.infer("phantom_002", threshold=threshold), expected, tmp_path)

    # As 3D Slicer sends it: every advertised setting, the run id empty.
    advertised = requests.get(f"{server.url}/info/", timeout=60).json()["trainers"][MODEL]["config"]
    slicer = {key: value[0] if isinstance(value, list) else value for key, value in advertised.items()}
    slicer.update(device="cpu", max_epochs=1, val_split=0, run_id="")
    assert server.post(f"train/{MODEL}", slicer, run_sync=True).status_code == 200
    third = checkpoints.active(server.deployment)
    assert third != second
    assert "dice" not in third  # nothing was left for validation
    assert read_metadata(server.deployment / "active" / "model.pt")["data"]["started_from"]["checkpoint"] == second

    # Several processes, through the bundle's multi_gpu_train.yaml.
    several = {**request, "force_multi_gpu": True, "gpus": "0,1", "max_epochs": 1}
    assert server.post(f"train/{MODEL}", several, run_sync=True).status_code == 200
    fourth = checkpoints.active(server.deployment)
    assert read_metadata(server.deployment / "active" / "model.pt")["data"]["started_from"]["checkpoint"] == third

    # From random weights.
    request = {**request, "pretrained": False, "max_epochs": 1}
    assert server.post(f"train/{MODEL}", request, run_sync=True).status_code == 200
    assert read_metadata(server.deployment / "active" / "model.pt")["data"]["started_from"] is None

    for name in (fourth, second):
        command(server, "use", name)
        assert checkpoints.active(server.deployment) == name
    assert first in command(server, "back")
    assert checkpoints.active(server.deployment) == first
    assert_same(
        server.infer("phantom_002"),
        run_inference(scan, server.deployment / "active/model.pt", tmp_path / "first"),
        tmp_path,
    )
    assert server.infer("phantom_002").content != learned.content
    assert len(checkpoints.table(server.deployment)) == 5
    listed = command(server, "checkpoints")
    assert all(name in listed for name in (first, second, third, fourth))


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_lines_of_the_documents_work_as_written(server: Server, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "monai_label.md").read_text()
    (lines,) = [block for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if block.startswith("MODEL=")]
    served = f"MODEL={NAME}\n"  # the shipped weights; the server of the tests has a demonstration's
    assert lines.startswith(served)
    lines = lines.replace(served, f"MODEL={MODEL}\n", 1)
    lines = lines.replace("http://127.0.0.1:8000", server.url).replace("out/monailabel", str(server.deployment))
    lines = re.sub(r"^curl ", "curl --fail --silent --show-error ", lines, flags=re.MULTILINE)
    before = checkpoints.names(server.deployment)
    done = subprocess.run(["bash", "-e", "-c", lines], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert '"epistemic_entropy"' in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"phantom_001.nii.gz", "phantom_002.nii.gz"}
    status = server.training_status()
    assert status["status"] == "DONE", status
    assert len(checkpoints.names(server.deployment)) == len(before) + 1


def test_a_mask_of_the_model_that_comes_back_unchanged_is_not_learned_from(server: Server, tmp_path: Path) -> None:
    folder = server.deployment / "studies/labels/final"
    for name in ("phantom_001", "phantom_002", "phantom_003"):
        requests.delete(f"{server.url}/datastore/label", params={"id": name, "tag": "final"}, timeout=60)
    (tmp_path / "own.nrrd").write_bytes(server.infer("phantom_001", result_extension=".nrrd").content)
    answer = server.save_label("phantom_001", tmp_path / "own.nrrd")
    assert answer.json()["warning"].startswith("a mask of the model, unchanged: a training leaves it out unless")
    train = {"max_epochs": 1, "device": "cpu", "val_split": 0}
    before = checkpoints.names(server.deployment)
    refused = server.post(f"train/{MODEL}", train, run_sync=True)
    assert refused.status_code == 400
    assert "1 scans have a final label, 1 of them a mask of the model, unchanged" in refused.json()["detail"]
    assert checkpoints.names(server.deployment) == before

    label(server, "phantom_002", tmp_path)
    learned = server.post(f"train/{MODEL}", train, run_sync=True)
    assert learned.status_code == 200, learned.text
    assert learned.json()["warnings"] == [f"{folder / 'phantom_001.nrrd'}: a mask of the model, unchanged; left out"]
    assert read_metadata(server.deployment / "active/model.pt")["data"]["training_scans"] == ["phantom_002.nii.gz"]
    both = server.post(f"train/{MODEL}", {**train, "unchanged_labels": True}, run_sync=True)
    assert both.status_code == 200, both.text
    assert "warnings" not in both.json()
    assert read_metadata(server.deployment / "active/model.pt")["data"]["training_cases"] == 2


def slicer_client() -> Any:
    """The client of the 3D Slicer extension, which MONAI Label's package brings."""
    path = PLUGINS / "slicer/MONAILabel/MONAILabelLib/client.py"
    spec = importlib.util.spec_from_file_location("slicer_client", path)
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # cgi
        spec.loader.exec_module(module)
    return module.MONAILabelClient


def test_the_requests_of_the_3d_slicer_extension(server: Server, tmp_path: Path) -> None:
    client = slicer_client()(server.url, str(tmp_path), "annotator")
    assert not client.auth_enabled()
    info = client.info()
    assert info["labels"] == ["infection"]
    assert [info["models"][name]["type"] for name in (MODEL, FULL)] == ["segmentation"] * 2
    sample = client.next_sample("first", {})
    assert Path(sample["path"]).is_file()
    params = info["models"][MODEL]["config"]
    wanted = {**params, **AS_TESTED, "result_extension": ".nrrd", "result_dtype": "uint8"}
    answer, said = client.infer(MODEL, sample["id"], dict(wanted))
    assert said["label_names"] == {"infection": 1}
    scan = sitk.ReadImage(sample["path"])
    assert sitk.ReadImage(answer).GetSize() == scan.GetSize()

    # A volume of one's own: a session first, and the scan itself with the label.
    sitk.WriteImage(scan, str(tmp_path / "own.nii.gz"))
    session = client.create_session(str(tmp_path / "own.nii.gz"))["session_id"]
    assert client.get_session(session)["name"] == session
    of_session, _ = client.infer(MODEL, "own", dict(wanted), session_id=session)
    mask = sitk.ReadImage(of_session)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(sitk.ReadImage(answer)))
    assert client.upload_image(str(tmp_path / "own.nii.gz"), "own")["image"] == "own"
    segments = {"label_info": [{"name": "infection", "idx": 1}]}
    sitk.WriteImage(mask, str(tmp_path / "unchanged.nii.gz"))
    assert (
        "a mask of the model, unchanged"
        in client.save_label("own", str(tmp_path / "unchanged.nii.gz"), params=segments)["warning"]
    )
    values = sitk.GetArrayFromImage(mask)
    values[..., : values.shape[-1] // 2] = 0
    corrected = sitk.GetImageFromArray(values)
    corrected.CopyInformation(mask)
    sitk.WriteImage(corrected, str(tmp_path / "corrected.nii.gz"))
    saved = client.save_label("own", str(tmp_path / "corrected.nii.gz"), params=segments)
    assert "unchanged" not in saved.get("warning", "")
    assert client.datastore()["objects"]["own"]["labels"]["final"]["info"]["label_info"] == segments["label_info"]

    train = {
        key: value[0] if isinstance(value, list) else value for key, value in info["trainers"][MODEL]["config"].items()
    }
    assert train["unchanged_labels"] is False
    client.train_start(MODEL, {**train, "device": "cpu", "max_epochs": 1000, "val_split": 0})
    try:
        for _ in range(1200):
            stats = train_stats(server)
            if "total_epochs" in stats and stats["epoch"]:
                break
            time.sleep(0.2)
        assert 0 < stats["epoch"] < stats["total_epochs"] == 1000
        assert "total_time" not in stats
        assert client.train_status(check_if_running=True)
    finally:
        stopped = client.train_stop()
    assert stopped["status"] == "STOPPED"
    assert "total_time" in train_stats(server)


def telling_threshold(server: Server, image: str, folder: Path) -> float:
    """A threshold that some voxels reach:
    a network trained for seconds may put all of them above one half."""
    for threshold in np.linspace(0.05, 0.95, 37).round(3).tolist():
        (folder / "try.nii.gz").write_bytes(server.infer(image, threshold=threshold).content)
        if 0.05 < nib.load(folder / "try.nii.gz").get_fdata().mean() < 0.95:
            return threshold
    pytest.fail("every voxel has the same probability")


def command(server: Server, *words: str) -> str:
    """One of the commands for people, in the main environment."""
    return run_command("monai_label", *words, "--deployment", server.deployment).stdout


# ----------------------------------------------------------------------------------------
# attacks


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    """A file that exists only if the server ran what a request said."""
    return tmp_path / "proof"


def code(proof: Path, sign: str = "$") -> str:
    """An expression of MONAI's ConfigParser that writes the proof and gives a number."""
    return f"{sign}open({str(proof)!r}, 'w').write('x') * 0.5"


def assert_refused(answer: requests.Response, proof: Path, server: Server) -> None:
    assert not proof.exists(), f"{proof} was written: {answer.status_code} {answer.text[:200]}"
    assert answer.status_code in (400, 403, 422), answer.text[:500]
    assert "\n" not in answer.json()["detail"]
    assert "Traceback" not in answer.text
    assert server.alive()


@pytest.mark.parametrize("name", ["threshold", "smallest_lesion_mm3", "device"])
def test_infer_runs_no_expression(name: str, server: Server, proof: Path) -> None:
    answers = [server.infer("phantom_001", **{name: code(proof)}) for _ in range(2)]  # what is kept acts the next time
    answers += [server.infer("phantom_001", **{name: f" {code(proof)}"}), server.infer("phantom_001", x=[code(proof)])]
    for answer in answers:
        assert_refused(answer, proof, server)
    assert server.infer("phantom_001").status_code == 200
    assert not proof.exists()


def test_infer_calls_no_target(server: Server, proof: Path) -> None:
    target = {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args": [str(proof)]}}
    written = {"_target_": "builtins.open", "file": str(proof), "mode": "w"}
    for value in (target, written, {"a": [written]}):
        assert_refused(server.infer("phantom_001", threshold=value), proof, server)


def test_infer_follows_no_reference(server: Server, proof: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(f'value: "{code(proof)}"\n')
    for value in ("@bundle_root", "%bundle_root", f"%{other}::value"):
        assert_refused(server.infer("phantom_001", threshold=value), proof, server)


@pytest.mark.parametrize(
    "name",
    ["max_epochs", "device", "tracking_uri", "tracking_experiment_name", "val_split", "run_id", "model_filename"],
)
@pytest.mark.parametrize("run_sync", [True, False])
def test_train_runs_no_expression(name: str, run_sync: bool, server: Server, proof: Path, tmp_path: Path) -> None:
    label_one(server, tmp_path)
    before = checkpoints.names(server.deployment)
    request = {"device": "cpu", "max_epochs": 1, "val_split": 0, name: code(proof)}
    if name.startswith("tracking"):
        request["tracking"] = "mlflow"
    answer = server.post(f"train/{server.model}", request, run_sync=run_sync)
    assert_refused(answer, proof, server)
    assert checkpoints.names(server.deployment) == before
    answer = server.post("train/", {server.model: request}, run_sync=run_sync)  # as OHIF asks
    assert_refused(answer, proof, server)


def test_train_reads_no_tracking_file(server: Server, proof: Path, tmp_path: Path) -> None:
    label_one(server, tmp_path)
    settings = tmp_path / "tracking.json"
    settings.write_text(json.dumps({"handlers_id": {}, "configs": {"run_name": code(proof), "run": [code(proof)]}}))
    request = {"device": "cpu", "max_epochs": 1, "val_split": 0, "tracking": str(settings)}
    assert_refused(server.post(f"train/{server.model}", request, run_sync=True), proof, server)


TASKS = ("train/{model}", "batch/infer/{model}", "scoring/epistemic", "activelearning/random")
FOREIGN = {"Origin": "https://evil.example"}


def special(proof: Path) -> list[Any]:
    """What MONAI's parser evaluates, follows or calls, or takes for instructions."""
    run = code(proof)
    texts = [
        run,
        f" {run}",
        f"\n{run}",
        code(proof, "@"),
        code(proof, "%"),
        "@bundle_root",
        "%bundle_root",
        "$@train",
        "$",
    ]
    keys = [{key: run.removeprefix("$")} for key in SPECIAL_KEYS]
    return [*texts, *keys, [{"deep": [run]}], {run: 1}, {"_target_": "builtins.open", "file": str(proof), "mode": "w"}]


@pytest.mark.parametrize("path", TASKS)
@pytest.mark.parametrize("name", ["device", "labels", "strange"])
def test_every_task_refuses_what_the_parser_treats_specially(path: str, name: str, server: Server, proof: Path) -> None:
    url = f"{server.url}/{path.format(model=server.model)}"
    for value in special(proof):
        answer = requests.post(url, params={"run_sync": True}, json={name: value}, timeout=60)
        assert_refused(answer, proof, server)
        answer = requests.post(url, params={"run_sync": True}, json={name: value}, headers=FOREIGN, timeout=60)
        assert answer.status_code == 403


@pytest.mark.parametrize("name", ["threshold", "label_tag", "strange"])
def test_inference_refuses_what_the_parser_treats_specially(name: str, server: Server, proof: Path) -> None:
    url = f"{server.url}/infer/{server.model}?image=phantom_001"
    for value in special(proof):
        assert_refused(server.infer("phantom_001", **{name: value}), proof, server)
        answer = requests.post(url, data={"params": json.dumps({name: value})}, headers=FOREIGN, timeout=60)
        assert answer.status_code == 403


def test_the_datastore_refuses_what_the_parser_treats_specially(server: Server, proof: Path) -> None:
    scan = ("a.nii.gz", (server.deployment / "studies/phantom_001.nii.gz").read_bytes())
    image, label = {"files": {"file": scan}}, {"files": {"label": scan}}
    texts = [text for text in special(proof) if isinstance(text, str)]
    requests_: list[Any] = [("image", {"image": text}, image) for text in texts]
    requests_ += [("label", {"image": "phantom_001", "tag": text}, label) for text in texts]
    for note in special(proof):
        text = json.dumps({"a": note})
        requests_ += [
            ("image", {"image": "noted"}, {**image, "data": {"params": text}}),
            ("label", {"image": "phantom_001"}, {**label, "data": {"params": text}}),
            ("image/info", {"image": "phantom_001"}, {"data": {"info": text}}),
            ("label/info", {"label": "phantom_001", "tag": "final"}, {"data": {"info": text}}),
        ]
    for path, query, content in requests_:
        for headers, codes in (({}, (400, 422)), (FOREIGN, (403,))):
            url = f"{server.url}/datastore/{path}"
            answer = requests.put(url, params=query, headers=headers, timeout=60, **content)
            assert answer.status_code in codes, (path, query, answer.text[:300])
    assert not proof.exists()
    assert not [*(server.deployment / "studies").glob("noted*")]


def test_changed_uploads_end_in_an_answer_of_one_line(server: Server, tmp_path: Path) -> None:
    """Volumes with changed bytes and fields, as tests/fuzz makes them, and changed JSON beside."""
    studies = server.deployment / "studies"
    before, ended = sorted(studies.glob("*.n*")), Counter[int]()
    for kind in ("NIfTI", "NRRD"):
        (tmp_path / kind).mkdir()
        TARGETS[kind].make(tmp_path / kind)
    for number in range(UPLOADS):
        rng, place = Random(f"upload {number}"), tmp_path / str(number)
        place.mkdir()
        kind = rng.choice(("NIfTI", "NRRD"))
        TARGETS[kind].change(tmp_path / kind, place, rng)
        (file,) = place.iterdir()
        sent = (
            rng.choice((file.name, file.name, f"{mutations.TEXTS[number % 11][:100]}{file.name}")),
            file.read_bytes(),
        )
        note = mutations.as_json(b'{"label_info": [{"name": "infection", "idx": 1}]}', rng) if number % 3 == 0 else b""
        path, query, field = rng.choice(
            (
                ("datastore/image", {"image": f"changed_{number}"}, "file"),
                ("datastore/label", {"image": "phantom_001"}, "label"),
                ("session/", {"uncompress": rng.random() < 0.5}, "files"),
            )
        )
        answer = requests.put(
            f"{server.url}/{path}", params=query, data={"params": note}, files={field: sent}, timeout=60
        )
        ended[answer.status_code] += 1
        assert answer.status_code in (200, 400, 422), (number, path, answer.text[:500])
        assert answer.status_code != 400 or len(answer.json()["detail"].splitlines()) == 1, (number, answer.text)
        if answer.status_code == 200 and path == "datastore/image":
            kept = [one for one in studies.glob(f"changed_{number}.*")]
            assert [read_grid(one) for one in kept]
            answer = requests.delete(f"{server.url}/datastore/", params={"id": f"changed_{number}"}, timeout=60)
            assert answer.status_code == 200
        if answer.status_code == 200 and path == "session/":
            session = answer.json()["session_id"]
            assert requests.delete(f"{server.url}/session/{session}", timeout=60).status_code == 200
    assert ended.keys() >= {200, 400}, ended
    assert sorted(studies.glob("*.n*")) == before
    assert server.alive()


def test_an_upload_cannot_become_code_of_a_task(server: Server, proof: Path) -> None:
    """The bundle's path of a request used to go on the path of the task's process,
    where Python starts a file."""
    start = f"open({str(proof)!r}, 'w').write('x')\n"
    answer = requests.put(
        f"{server.url}/datastore/image",
        params={"image": "sitecustomize"},
        files={"file": ("sitecustomize.py", start.encode())},
        timeout=60,
    )
    studies = server.deployment / "studies"
    server.post("scoring/epistemic", {"bundle_path": str(studies), "device": "cpu", "max_samples": 1})
    wait_for_tasks(server, "scoring")
    assert not proof.exists()
    assert answer.status_code == 400
    assert not (studies / "sitecustomize.py").exists()


def test_an_archive_cannot_leave_its_folder(server: Server, proof: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo(str(Path(*[".."] * 20) / str(proof).lstrip("/")))
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    requests.put(
        f"{server.url}/session/",
        params={"uncompress": True},
        files={"files": ("a.tar.gz", archive.getvalue())},
        timeout=60,
    )
    assert not proof.exists()
    assert server.alive()


def test_weights_are_not_changed_by_a_request(server: Server) -> None:
    weights = server.deployment / "active" / "model.pt"
    before = weights.read_bytes()
    url = f"{server.url}/model/{server.model}"
    assert requests.put(url, files={"file": ("model.pt", b"other")}, timeout=60).status_code == 403
    assert requests.delete(url, timeout=60).status_code == 403
    assert weights.read_bytes() == before


def test_a_mask_of_the_model_is_not_saved_as_an_annotators(server: Server) -> None:
    answer = server.infer("turned", save_label=True, label_tag="final")
    assert answer.status_code == 400
    assert "annotators" in answer.json()["detail"]
    labels = server.deployment / "studies/labels"
    assert not [path for path in labels.rglob("turned*") if path.is_file()]
    everything = {"device": "cpu", "images": ["turned"], "max_workers": 1}
    assert server.post(f"batch/infer/{server.model}", everything, run_sync=True).status_code == 200
    assert [path.relative_to(labels) for path in labels.rglob("turned*")] == [Path("original/turned.nii.gz")]


ASK = [
    ("POST", "/infer/{model}?image=phantom_001&output=image"),
    ("POST", "/train/{model}"),
    ("POST", "/activelearning/random"),
    ("DELETE", "/train/"),
    ("PUT", "/datastore/label?image=phantom_001"),
    ("DELETE", "/datastore/?id=phantom_003"),
    ("POST", "/reload"),
    ("OPTIONS", "/train/{model}"),
    ("GET", "/datastore/image?image=phantom_001"),
    ("GET", "/logs/?lines=10"),
]


@pytest.mark.parametrize(("method", "path"), ASK)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Host": "evil.example"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ],
    ids=["foreign", "null", "other port", "rebound", "rebound page", "no-cors"],
)
def test_a_foreign_page_gets_nothing(method: str, path: str, headers: dict[str, str], server: Server) -> None:
    url = server.url + path.format(model=server.model)
    if method == "OPTIONS":
        headers = {**headers, "Access-Control-Request-Method": "POST"}
    answer = requests.request(method, url, headers=headers, timeout=60)
    assert answer.status_code == 403
    assert "expected" in answer.json()["detail"]
    assert "access-control-allow-origin" not in answer.headers
    assert (server.deployment / "studies" / "phantom_003.nii.gz").exists()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_its_own_pages_and_programs_are_served(name: str, server: Server) -> None:
    port = server.url.rsplit(":", 1)[1]
    for headers in ({}, {"Origin": f"http://{name}:{port}", "Sec-Fetch-Site": "same-origin"}):
        headers |= {"Host": f"{name}:{port}"}
        answer = requests.post(f"{server.url}/activelearning/first", json={}, headers=headers, timeout=60)
        assert answer.status_code == 200


def test_a_volume_of_ones_own_is_sent_as_a_session(server: Server, tmp_path: Path) -> None:
    scan = server.deployment / "studies" / "phantom_002.nii.gz"
    sent = requests.put(f"{server.url}/session/", files={"files": (scan.name, scan.read_bytes())}, timeout=60).json()
    answer = requests.post(
        f"{server.url}/infer/{server.model}",
        params={"session_id": sent["session_id"], "output": "image"},
        data={"params": json.dumps(AS_TESTED)},
        timeout=600,
    )
    assert answer.status_code == 200, answer.text
    for name, content in (("sent", answer.content), ("stored", server.infer("phantom_002").content)):
        (tmp_path / f"{name}.nii.gz").write_bytes(content)
    sent_mask, stored_mask = (nib.load(tmp_path / f"{name}.nii.gz") for name in ("sent", "stored"))
    assert (sent_mask.get_fdata() == stored_mask.get_fdata()).all()
    gone = requests.post(f"{server.url}/infer/{server.model}", params={"session_id": "gone"}, timeout=60)
    assert gone.status_code == 404
    assert gone.json()["detail"].startswith("session gone: unknown or expired; expected")


def test_a_label_that_does_not_belong_to_its_scan_replaces_none(server: Server, tmp_path: Path) -> None:
    label_one(server, tmp_path)
    kept = server.deployment / "studies/labels/final/phantom_001.nii.gz"
    good = kept.read_bytes()
    scan = nib.load(server.deployment / "studies/phantom_001.nii.gz")
    mask = np.zeros(scan.shape, np.uint8)
    shifted = scan.affine.copy()
    shifted[2, 3] += 30
    nib.save(nib.Nifti1Image(mask[:, :, :-1], scan.affine), tmp_path / "other_size.nii.gz")
    nib.save(nib.Nifti1Image(mask, shifted), tmp_path / "shifted.nii.gz")
    sitk.WriteImage(sitk.GetImageFromArray(mask[:-1]), str(tmp_path / "other_size.nrrd"))
    for name in ("other_size.nii.gz", "other_size.nrrd", "shifted.nii.gz"):
        answer = server.save_label("phantom_001", tmp_path / name)
        assert answer.status_code == 400, name
        assert "expected" in answer.json()["detail"]
        assert kept.read_bytes() == good
        assert not kept.with_name("phantom_001.nrrd").exists()
    assert "off" in answer.json()["detail"]

    turned = nib.Nifti1Image(np.ones(scan.shape, np.uint8), scan.affine).as_reoriented(
        np.array([[2, 1], [0, -1], [1, 1]])
    )
    nib.save(turned, tmp_path / "turned.nii.gz")
    answer = server.save_label("phantom_001", tmp_path / "turned.nii.gz")
    assert answer.status_code == 200, answer.text
    assert "warning" not in answer.json()
    nib.save(nib.Nifti1Image(mask, scan.affine), tmp_path / "empty.nii.gz")
    answer = server.save_label("phantom_001", tmp_path / "empty.nii.gz")
    assert answer.status_code == 200, answer.text
    assert answer.json()["warning"] == "no voxel is marked as infection"


def test_the_archive_of_the_labelled_scans_is_removed_once_it_is_sent(server: Server, tmp_path: Path) -> None:
    label_one(server, tmp_path)
    temporary = server.deployment.parent / "home/tmp"
    before = set(temporary.iterdir())
    answer = requests.get(f"{server.url}/datastore/dataset", timeout=60)
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert {"image/phantom_001.nii.gz", "label/phantom_001.nii.gz"} <= set(archive.namelist())
    for _ in range(100):  # it is removed after the answer
        if not (left := set(temporary.iterdir()) - before):
            break
        time.sleep(0.05)
    assert not left


def test_a_training_takes_nrrd_and_names_labels_that_cannot_be_used_or_mark_nothing(
    server: Server, tmp_path: Path
) -> None:
    studies = server.deployment / "studies"
    by_hand, scan = studies / "labels/final/phantom_003.nii.gz", nib.load(studies / "phantom_001.nii.gz")
    for label in by_hand.parent.iterdir():
        label.unlink()
    wait_for_labels(server, set())
    train = {"max_epochs": 1, "device": "cpu", "val_split": 0}
    mask = sitk.ReadImage(str(studies / "phantom_001.nii.gz")) > 0
    sitk.WriteImage(sitk.Cast(mask, sitk.sitkUInt8), str(tmp_path / "label.nrrd"))
    assert server.save_label("phantom_001", tmp_path / "label.nrrd").status_code == 200
    answer = server.post(f"train/{server.model}", train, run_sync=True)
    assert answer.status_code == 200, answer.text
    assert "warnings" not in answer.json()

    nib.save(nib.Nifti1Image(np.zeros((*scan.shape[:2], scan.shape[2] - 1), np.uint8), scan.affine), by_hand)
    wait_for_labels(server, {"phantom_001", "phantom_003"})
    answer = server.post(f"train/{server.model}", train, run_sync=True)
    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"].startswith(f"{by_hand}: has ")
    assert "expected: those of phantom_003.nii.gz" in answer.json()["detail"]

    (studies / "labels/final/phantom_001.nrrd").unlink()
    wait_for_labels(server, {"phantom_003"})
    empty = nib.load(studies / "phantom_003.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(empty.shape, np.uint8), empty.affine), by_hand)
    answer = server.post(f"train/{server.model}", train, run_sync=True)
    assert answer.status_code == 200, answer.text
    warnings = [f"{by_hand}: no voxel is marked as infection", "no label marks any infection"]
    assert answer.json()["warnings"] == warnings


def wait_for_labels(server: Server, expected: set[str]) -> None:
    """The server watches its folder;
    it has seen what was changed there by hand when it lists it."""
    for _ in range(120):
        objects = requests.get(f"{server.url}/datastore/?output=all", timeout=60).json()["objects"]
        if {name for name, entry in objects.items() if entry["labels"].get("final")} == expected:
            return
        time.sleep(0.25)
    pytest.fail(f"the server does not list the labels {expected}")


def label_one(server: Server, folder: Path) -> None:
    (folder / "phantom_001.nii.gz").write_bytes(server.infer("phantom_001").content)
    assert server.save_label("phantom_001", folder / "phantom_001.nii.gz").status_code == 200


def wait_for_tasks(server: Server, kind: str) -> None:
    for _ in range(600):
        answer = requests.get(f"{server.url}/{kind}/", timeout=60)
        if answer.status_code == 404 or answer.json()["status"] not in ("SUBMITTED", "RUNNING"):
            return
        time.sleep(0.2)
