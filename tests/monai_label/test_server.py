"""The real MONAI Label server on loopback, around a narrow network,
in MONAI Label's own environment."""

from __future__ import annotations

import gzip
import importlib.util
import re
import shutil
import subprocess
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
import SimpleITK as sitk  # noqa: N813

from scripts.inference.metadata import read_metadata
from scripts.monai_label import checkpoints
from scripts.monai_label.deployment import NAME
from tests.bundle_runner import run_command, run_inference
from tests.monai_label.conftest import AS_TESTED

Server = Any  # tests/monai_label/conftest.py

pytestmark = [pytest.mark.monailabel, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / ".venv-monailabel/monailabel/plugins"
MODEL, FULL = f"{NAME}_demo", f"{NAME}_full"


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

    # As 3D Slicer sends it: in the background, every advertised setting, the run id empty.
    advertised = requests.get(f"{server.url}/info/", timeout=60).json()["trainers"][MODEL]["config"]
    slicer = {key: value[0] if isinstance(value, list) else value for key, value in advertised.items()}
    slicer.update(device="cpu", max_epochs=1, val_split=0, run_id="")
    third = wait_for_training(server, slicer)
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
        for _ in range(480):
            stats = train_stats(server)
            if "total_epochs" in stats and stats["epoch"]:
                break
            time.sleep(0.5)
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


def wait_for_training(server: Server, request: dict[str, object]) -> str:
    """Trains in the background; returns the new checkpoint."""
    before = checkpoints.active(server.deployment)
    assert server.post(f"train/{MODEL}", request).status_code == 200
    status = server.training_status()
    assert status["status"] == "DONE", status
    after = checkpoints.active(server.deployment)
    assert after != before
    return after


def command(server: Server, *words: str) -> str:
    """One of the commands for people, in the main environment."""
    return run_command("monai_label", *words, "--deployment", server.deployment).stdout
