"""What a request must not be able to do to the MONAI Label server: run code, change weights,
serve a foreign page."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
import SimpleITK as sitk  # noqa: N813

from scripts.io.reading import read_grid
from scripts.monai_label import checkpoints
from scripts.monai_label.request_values import SPECIAL_KEYS
from tests.fuzz import mutations
from tests.fuzz.targets import TARGETS
from tests.monai_label.conftest import AS_TESTED

Server = Any  # tests/monai_label/conftest.py
UPLOADS = 60

pytestmark = [pytest.mark.monailabel, pytest.mark.slow]


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
    answer = server.infer("phantom_002", save_label=True, label_tag="final")
    assert answer.status_code == 400
    assert "annotators" in answer.json()["detail"]
    assert not (server.deployment / "studies/labels/final/phantom_002.nii.gz").exists()
    everything = {"device": "cpu", "images": ["phantom_002"], "max_workers": 1}
    assert server.post(f"batch/infer/{server.model}", everything, run_sync=True).status_code == 200
    assert (server.deployment / "studies/labels/original/phantom_002.nii.gz").exists()


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
    for _ in range(240):
        answer = requests.get(f"{server.url}/{kind}/", timeout=60)
        if answer.status_code == 404 or answer.json()["status"] not in ("SUBMITTED", "RUNNING"):
            return
        time.sleep(0.5)
