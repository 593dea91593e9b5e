"""Semi-supervised training on small scans: what is labelled, mixed, left out,
and what a stopped run goes on with."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from scripts.data.datalist import describe
from scripts.data.layouts.case import Case
from scripts.errors import UserError
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.metadata import read_metadata
from scripts.inference.segmenter import Segmenter
from scripts.io.reading import read_scan
from scripts.research import workflows
from scripts.research.pseudo_labels import pseudo_labelled, write_pseudo_labels
from scripts.research.semi_supervised import SemiSupervised

SMALL = {
    "network_def#base_width": 4,
    "spatial_size": 32,
    "batch_size": 4,
    "max_epochs": 1,
    "learning_rate": 0.01,
}


@pytest.fixture
def dataset(make_dataset: Callable[..., Path]) -> Path:
    """Two labelled cases in two folds, four unlabelled ones,
    one of them of a validation patient."""
    folder = make_dataset(cases=6, folds=2)
    path = folder / "datalist.json"
    datalist = json.loads(path.read_text())
    unlabelled = [{key: case[key] for key in ("image", "patient", "name")} for case in datalist["training"][2:]]
    unlabelled[0]["patient"] = datalist["training"][0]["patient"]  # of fold 0
    path.write_text(json.dumps({**datalist, "training": datalist["training"][:2], "unlabeled": unlabelled}))
    return folder


def scheme(dataset: Path, out: Path, **settings: Any) -> SemiSupervised:
    return SemiSupervised(["configs/train.yaml"], str(dataset), str(out), device="cpu", settings=SMALL, **settings)


def datalist_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "data" / "datalist.json").read_text())
    return found


def names(cases: list[Case]) -> list[str]:
    return [case["name"] for case in cases]


def test_one_round_of_hard_labels_in_paired_batches(dataset: Path, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    weights = scheme(dataset, tmp_path / "out").run()
    left = [one for one in set(threading.enumerate()) - before if "Writer" in type(one).__name__]
    assert left == []  # hundreds of rounds run in one process
    assert weights == tmp_path / "out" / "model.pt"
    metadata = read_metadata(weights)
    assert metadata["data"]["pseudo_labelled_cases"] == 3
    assert metadata["data"]["validation_patients"] == ["case_00"]
    listed = datalist_of(tmp_path / "out" / "round_001")["training"]
    pseudo = [case for case in listed if case.get("pseudo")]
    assert names(pseudo) == ["case_03", "case_04", "case_05"]  # case_02 is of the validation patient
    assert {case["fold"] for case in pseudo} == {None}
    levels = np.asarray(nib.load(pseudo[0]["label"]).dataobj)
    assert levels.shape == nib.load(pseudo[0]["image"]).shape
    np.testing.assert_array_equal(nib.load(pseudo[0]["label"]).affine, nib.load(pseudo[0]["image"]).affine)
    assert pseudo[0]["label_codes"][0] == 128
    assert not list((tmp_path / "out").rglob("last.pt"))


def test_groups_of_soft_labels_go_on_from_the_network_before_and_end_in_two_stages(
    dataset: Path, tmp_path: Path
) -> None:
    final = [
        {"name": "pretrained", "train_on": "pseudo", "start": "scratch"},
        {"name": "finetuned", "train_on": "labelled", "start": "previous", "settings": {"max_epochs": 2}},
    ]
    out = tmp_path / "out"
    options: dict[str, Any] = {"rounds": None, "group_size": 2, "labels": "soft", "start": "previous", "mixing": "pool"}
    weights = scheme(dataset, out, final=final, **options).run()
    assert sorted(path.name for path in out.iterdir()) == [
        *("finetuned", "model.json", "model.pt", "pretrained", "round_001", "round_002", "scheme.json", "supervised"),
    ]
    pools = [[case for case in datalist_of(out / f"round_00{k}")["training"] if case.get("pseudo")] for k in (1, 2)]
    assert [len(pool) for pool in pools] == [2, 3]
    assert names(pools[1])[:2] == names(pools[0])
    assert sorted(names(pools[1])) == ["case_03", "case_04", "case_05"]
    assert {case["label_scale"] for case in pools[1]} == {255}
    assert names(datalist_of(out / "pretrained")["training"]) == ["case_00", *names(pools[1])]
    assert names(datalist_of(out / "finetuned")["training"]) == ["case_01", "case_00"]
    assert (
        read_metadata(weights)["sha256"]
        == json.loads((out / "finetuned" / "run" / "finished.json").read_text())["sha256"]
    )


def test_without_a_validation_fold_it_trains_on_all_labelled_cases(dataset: Path, tmp_path: Path) -> None:
    metadata = read_metadata(scheme(dataset, tmp_path / "out", fold=None).run())
    assert (metadata["data"]["fold"], metadata["data"]["validation_cases"]) == (None, 0)
    listed = names(datalist_of(tmp_path / "out" / "round_001")["training"])
    assert listed == [f"case_0{index}" for index in range(6)]  # case_02 is of a patient that is trained on


def test_a_stopped_run_goes_on_and_ends_with_the_same_weights(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read_metadata(scheme(dataset, tmp_path / "whole", rounds=2).run())["sha256"]
    out = tmp_path / "out"
    run_workflow, calls = workflows.run_workflow, []

    def stopped_in_the_second(*arguments: Any, **settings: Any) -> None:
        calls.append(Path(settings["output_dir"]).parent.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        run_workflow(*arguments, **settings)

    monkeypatch.setattr(workflows, "run_workflow", stopped_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        scheme(dataset, out, rounds=2).run()
    with pytest.raises(UserError, match="holds results already"):
        scheme(dataset, out, rounds=2).run()
    with pytest.raises(UserError, match=r"began with other settings \(rounds\)"):
        scheme(dataset, out, rounds=3, resume=True).run()
    labels = {path: path.stat().st_mtime_ns for path in (out / "round_001" / "labels").iterdir()}
    assert read_metadata(scheme(dataset, out, rounds=2, resume=True).run())["sha256"] == expected
    assert calls == ["supervised", "round_001", "round_001", "round_002"]
    assert {path: path.stat().st_mtime_ns for path in labels} == labels


def test_a_scheme_goes_on_with_the_cases_and_folds_that_it_began_with(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any, **settings: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workflows, "run_workflow", stopped)
    out, path = tmp_path / "out", dataset / "datalist.json"
    with pytest.raises(KeyboardInterrupt):
        scheme(dataset, out).run()
    listed = json.loads(path.read_text())
    path.write_text(json.dumps({**listed, "warnings": ["said in other words"]}))
    with pytest.raises(KeyboardInterrupt):
        scheme(dataset, out, resume=True).run()
    mask = dataset / listed["training"][0]["label"]
    drawn = mask.read_bytes()
    mask.write_bytes(mask.with_name(Path(listed["training"][1]["label"]).name).read_bytes())  # corrected in place
    with pytest.raises(UserError, match=r"began with other settings \(masks_sha256\)"):
        scheme(dataset, out, resume=True).run()
    mask.write_bytes(drawn)
    training = [{**case, "fold": 1 - case["fold"]} for case in listed["training"]]
    path.write_text(json.dumps({**listed, "training": training}))
    with pytest.raises(UserError, match=r"began with other settings \(cases\)"):
        scheme(dataset, out, resume=True).run()


def test_a_folder_of_a_plain_training_is_not_resumed_as_a_scheme(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.pt").write_bytes(b"weeks of training")
    with pytest.raises(UserError, match="holds results already"):
        scheme(dataset, out, resume=True).run()
    assert (out / "model.pt").read_bytes() == b"weeks of training"


def test_a_patient_named_alone_is_left_out(dataset: Path, tmp_path: Path) -> None:
    scheme(dataset, tmp_path / "out", exclude_patients="case_04").run()
    listed = datalist_of(tmp_path / "out" / "round_001")["training"]
    assert names([case for case in listed if case.get("pseudo")]) == ["case_03", "case_05"]


def test_a_teacher_that_knows_the_validation_cases_is_refused(
    dataset: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    weights = make_checkpoint(tmp_path / "teacher.pt", data=describe(dataset, 1))
    with pytest.raises(UserError, match="trained with fold 1 left out, so it knows the validation cases of fold 0"):
        scheme(dataset, tmp_path / "out", teacher=str(weights))
    weights = make_checkpoint(tmp_path / "other.pt", data={"name": "another data set"})
    assert "teacher_sha256" in scheme(dataset, tmp_path / "out", teacher=str(weights)).scheme


def test_overwriting_removes_what_the_scheme_wrote_and_nothing_else(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds results already"):
        scheme(dataset, out, overwrite=True).run()
    (out / "thesis.txt").rename(tmp_path / "thesis.txt")
    scheme(dataset, out).run()
    (tmp_path / "thesis.txt").rename(out / "thesis.txt")
    scheme(dataset, out, overwrite=True, rounds=2).run()
    assert (out / "thesis.txt").read_text() == "mine"
    assert (out / "round_002" / "run" / "finished.json").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"labels": "maybe"}, "labels is 'maybe'; expected: hard, soft"),
        ({"start": "end"}, "start is 'end'"),
        ({"mixing": "cake"}, "mixing is 'cake'"),
        ({"confidence": 0.3}, "confidence is 0.3; expected: 0, or 0.5 to 1"),
        ({"rounds": None}, "rounds and group_size are both null"),
        ({"final": [{"name": "x", "train_on": "air", "start": "scratch"}]}, "final stage .* expected: train_on"),
        ({"final": [{"train_on": "pseudo", "start": "scratch"}]}, "final stages are called .*different names"),
        ({"final": [{"name": "round_001", "train_on": "pseudo", "start": "scratch"}]}, "final stages are called"),
        ({"group_size": 0}, "group_size is 0; expected: a whole number from 1"),
        ({"rounds": 0}, "rounds is 0"),
        ({"resume": True, "overwrite": True}, "resume and overwrite are both true"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        scheme(tmp_path, tmp_path / "out", **settings)


def test_labels_are_the_networks_probabilities_on_the_pictures_own_grid(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Against the logits of the same network on the same input,
    where the size needs no resizing."""
    weights = make_checkpoint(tmp_path / "model.pt", size=32)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "slice.png")
    case = Case(name="slice", image=str(tmp_path / "slice.png"), patient=None, fold=None)
    (path,) = write_pseudo_labels(weights, [case], tmp_path / "labels", torch.device("cpu"))
    from scripts.inference.building import network_from_metadata  # the oracle is the bare network

    network = network_from_metadata(read_metadata(weights)).eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    x = torch.from_numpy(pixels.T.astype(np.float32)) / 255
    x = (x - x.mean()) / (x.std(correction=0) + 1e-8)
    with torch.no_grad():
        expected = torch.sigmoid(network(x[None, None]))[0, 0].T.numpy() * 255
    np.testing.assert_allclose(np.asarray(Image.open(path), float), expected, atol=0.51)


def test_labels_of_a_volume_are_what_segment_finds(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """The mean over neighbouring slices, which the metadata ask for, too."""
    weights = make_checkpoint(tmp_path / "model.pt", size=32, operating_point={"through_plane_mm": 3.0})
    values = np.random.default_rng(0).normal(-600, 300, (40, 36, 9)).clip(-1024, 500).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([-0.7, -0.7, 2.5, 1.0])), tmp_path / "scan.nii.gz")
    case = Case(name="scan", image=str(tmp_path / "scan.nii.gz"), patient=None, fold=None)
    (path,) = write_pseudo_labels(weights, [case], tmp_path / "labels", torch.device("cpu"))
    scan = read_scan(tmp_path / "scan.nii.gz")
    segmenter = Segmenter(weights, "cpu", backend="torch", precision="fp32")
    expected = segmenter.segment(scan, HounsfieldSlices(scan), probability=True).probability
    assert expected is not None
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), expected)
    segmenter.through_plane_mm = 0.0
    alone = segmenter.segment(scan, HounsfieldSlices(scan), probability=True).probability
    assert alone is not None
    assert (alone != expected).any()


def test_unsure_slices_are_left_out(tmp_path: Path) -> None:
    levels = np.zeros((4, 4, 3), np.uint8)
    levels[0, 0] = [128, 255, 0]  # 0.5: no idea; 1: sure of a lesion; 0: sure of none
    levels[1, 1, 1] = 204  # 0.8
    nib.save(nib.Nifti1Image(levels, np.eye(4)), tmp_path / "label.nii.gz")
    case = Case(name="a", image="a.nii.gz", patient="p", fold=None)
    for confidence, slices in ((0.85, [1, 2]), (0.95, [2]), (0.5, [0, 1, 2])):  # 0.502; (1 + 0.8) / 2; 1
        (found,) = pseudo_labelled([case], [tmp_path / "label.nii.gz"], soft=True, confidence=confidence)
        assert found["slices"] == slices
    assert "slices" not in pseudo_labelled([case], [tmp_path / "label.nii.gz"], soft=True)[0]
    nib.save(nib.Nifti1Image(np.full((4, 4, 1), 128, np.uint8), np.eye(4)), tmp_path / "doubt.nii.gz")
    assert pseudo_labelled([case], [tmp_path / "doubt.nii.gz"], soft=True, confidence=0.9) == []


def test_a_round_without_a_sure_slice_says_so(dataset: Path, tmp_path: Path) -> None:
    said = "round_001: no slice of 3 unlabelled cases has a confidence of 1; expected: a lower `confidence`"
    with pytest.raises(UserError, match=said):
        scheme(dataset, tmp_path / "out", labels="soft", confidence=1.0).run()
    assert not (tmp_path / "out" / "round_001" / "run").exists()
