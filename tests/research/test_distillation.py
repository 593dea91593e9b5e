"""A student and its teacher on small scans: what is taught, left out, refused and made once."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from scripts.data import slice_cache
from scripts.data.datalist import describe
from scripts.data.slices import SliceDataset
from scripts.errors import UserError
from scripts.files import read_json, sha256, write_json
from scripts.inference.metadata import read_metadata
from scripts.research import experiments, pseudo_labels
from scripts.research.distillation import taught_cases, teacher_of_fold
from scripts.research.experiment_config import read_experiment
from scripts.research.experiments import run_experiment
from scripts.research.workflows import train_once
from scripts.training.fine_tuning import describe_parent
from scripts.training.tables import FILES
from scripts.transforms.items import UNKNOWN
from scripts.version import BUNDLE
from tests.chains import chain

DISTIL = "configs/presets/distil.yaml"


@pytest.fixture
def dataset(make_dataset: Callable[..., Path]) -> Path:
    """Two labelled cases and a lesion-free one in two folds; three unlabelled cases, one of them of
    a patient of fold 0."""
    folder = make_dataset(cases=6, folds=2)
    path = folder / "datalist.json"
    datalist = json.loads(path.read_text())
    (*labelled, free), rest = datalist["training"][:3], datalist["training"][3:]
    free = {key: value for key, value in free.items() if key != "label"} | {"lesion_free": True, "fold": 1}
    labelled[1]["fold"], labelled[0]["fold"] = 0, 1
    unlabelled = [{key: case[key] for key in ("image", "patient", "name")} for case in rest]
    unlabelled[0]["patient"] = labelled[1]["patient"]
    path.write_text(json.dumps({**datalist, "training": [*labelled, free], "unlabeled": unlabelled}))
    return folder


@pytest.fixture
def teacher(dataset: Path, make_checkpoint: Callable[..., Path], tmp_path: Path) -> str:
    """Random weights that say that they left out fold 0."""
    return str(make_checkpoint(tmp_path / "teacher_0.pt", size=32, data=describe(dataset, 0)))


def taught(dataset: Path, teacher: str, folder: Path, **settings: Any) -> list[dict[str, Any]]:
    return taught_cases(str(dataset), settings.pop("fold", 0), teacher, str(folder), "cpu", **settings)


def test_training_and_unlabelled_cases_have_soft_maps_and_those_of_validation_patients_are_left_out(
    dataset: Path, teacher: str, tmp_path: Path
) -> None:
    cases = taught(dataset, teacher, tmp_path / "maps")
    assert [case["name"] for case in cases] == ["case_00", "case_02", "case_04", "case_05"]
    assert ["label" in case for case in cases] == [True, False, False, False]
    for case in cases:
        levels, image = nib.load(case["soft"]), nib.load(case["image"])
        assert levels.get_data_dtype() == np.uint8
        assert levels.shape == image.shape
        np.testing.assert_array_equal(levels.affine, image.affine)
        assert case["soft_scale"] == 255
    (dataset / "datalist.json").write_text(
        json.dumps({**json.loads((dataset / "datalist.json").read_text()), "unlabeled": []})
    )
    assert len(taught(dataset, teacher, tmp_path / "maps")) == 2


def test_labelled_kinds_of_slices_keep_their_weights() -> None:
    taught_mix, mix = (
        yaml.safe_load((BUNDLE / one).read_text(encoding="utf-8"))["slice_mix"]
        for one in (DISTIL, "configs/presets/weights.yaml")
    )
    assert taught_mix == {**mix, "unlabeled": 0.25}


def test_what_is_served_is_mask_edge_and_teacher(dataset: Path, teacher: str, tmp_path: Path) -> None:
    """A slice without label is unknown; a lesion-free one is 0, and both have the teacher's map."""
    cases = taught(dataset, teacher, tmp_path / "maps")
    overlays = ("presets/weights", "presets/distil")
    settings = {
        "spatial_size": 32,
        "field_of_view": "scan",
        "augment_probability": dict.fromkeys(("thick", "part", "sharpen", "smooth", "zoom_out", "noise"), 0.0),
    }
    grid, steps = (chain(one, *overlays, **settings) for one in ("network_grid", "train#preprocessing"))
    options: dict[str, Any] = {"slice_mix": {"unlabeled": 1, "lesion_free": 1}, "slices_per_epoch": 8}
    for cache in (None, str(tmp_path / "cache"), str(tmp_path / "cache")):
        plain, moved = (SliceDataset(cases, grid, one, cache_dir=cache, **options) for one in (None, steps))
        assert [float(plain[index]["label"].unique()) for index in range(8)] == [0.0] * 4 + [UNKNOWN] * 4
        soft = plain[0]["soft"]
        assert 0 < float(soft.min()) < float(soft.max()) < 1
        assert moved[0]["label"].shape == (3, 32, 32)
        assert not moved[0]["label"][:2].any()
        assert set(moved[0]["label"][2].unique().tolist()) <= set(soft.unique().tolist())
    unknown = {key: value for key, value in cases[1].items() if key != "lesion_free"}
    assert set(SliceDataset([unknown], grid, cache_dir=cache)[0]["label"].unique().tolist()) == {UNKNOWN}
    case = cases[1]
    expected = np.asarray(nib.load(case["soft"]).dataobj)[..., 2].astype(float) / 255
    assert abs(float(soft_of(cases, grid, 1)[2].mean()) - expected.mean()) < 0.02


def soft_of(cases: list[dict[str, Any]], grid: Any, index: int) -> list[Any]:
    dataset = SliceDataset([cases[index]], grid)
    return [dataset[z]["soft"] for z in range(len(dataset))]


def test_unsure_slices_are_left_out_of_the_unlabelled_ones_only(dataset: Path, teacher: str, tmp_path: Path) -> None:
    def levels(case: dict[str, Any], value: Callable[[int], int]) -> None:
        old = nib.load(case["soft"])
        array = np.zeros(old.shape, np.uint8)
        for z in range(array.shape[2]):
            array[3, 3, z] = value(z)
        nib.save(nib.Nifti1Image(array, old.affine), case["soft"])

    first = taught(dataset, teacher, tmp_path / "maps")
    for case, value in zip(
        first, (lambda z: 128, lambda z: 128, lambda z: 128, lambda z: 128 if z < 4 else 230), strict=True
    ):
        levels(case, value)
    found = taught(dataset, teacher, tmp_path / "maps", confidence=0.8)
    assert [(case["name"], case.get("slices")) for case in found] == [
        ("case_00", None),
        ("case_02", None),
        ("case_05", [4, 5]),
    ]
    with pytest.raises(UserError, match=r"confidence is 0\.3"):
        taught(dataset, teacher, tmp_path / "maps", confidence=0.3)


def test_a_teacher_that_saw_a_validation_case_is_refused(
    dataset: Path, teacher: str, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="fold 0 left out, so it knows the validation cases of fold 1"):
        taught(dataset, teacher, tmp_path / "maps", fold=1)
    right = describe(dataset, 0)
    for change, said in (
        ({"fold": None}, "fold None left out"),
        ({"folds": 5}, "fold 0 of another list left out"),
        ({"name": "small+more"}, "fold 0 of another list"),
        ({"validation_patients": ["somebody"]}, "fold 0 left out"),
    ):
        path = make_checkpoint(tmp_path / "other.pt", size=32, data={**right, **change})
        with pytest.raises(UserError, match=said):
            taught(dataset, str(path), tmp_path / "maps")
    parent = {"sha256": "0" * 64, "data": describe(dataset, None), "datasets": ["dataset"], "terms": ""}
    tuned = make_checkpoint(tmp_path / "tuned.pt", size=32, data=right, parent=parent)
    with pytest.raises(UserError, match="fold None left out, so it knows"):
        taught(dataset, str(tuned), tmp_path / "maps")
    elsewhere: dict[str, Any] = {"name": "elsewhere", "synthetic": True}
    for key, before in (("teacher", str(tuned)), ("parent", str(tmp_path / "teacher.pt"))):
        far = make_checkpoint(tmp_path / f"{key}.pt", size=32, data=elsewhere, **{key: describe_parent(before)})
        with pytest.raises(UserError, match="fold None left out, so it knows"):
            taught(dataset, str(far), tmp_path / "maps")
    lineage = read_metadata(tmp_path / "parent.pt")["parent"]
    assert lineage["ancestors"] == [right, describe(dataset, None)]  # each once, the nearest first
    assert not (tmp_path / "maps").exists()
    assert len(taught(dataset, teacher, tmp_path / "maps", fold=None)) == 3 + 3  # nothing is validated
    assert teacher_of_fold("a/fold_{fold}/m.pt", 2) == "a/fold_2/m.pt"
    with pytest.raises(UserError, match="teacher is null"):
        teacher_of_fold(None, 0)


def test_maps_that_were_made_before_a_stop_are_not_made_again(
    dataset: Path, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = pseudo_labels._write, []

    def stopped(levels: Any, image: str, path: Path) -> None:
        calls.append(Path(image).name)
        if len(calls) == 3:
            path.write_bytes(b"half of a map")
            raise KeyboardInterrupt
        write(levels, image, path)

    monkeypatch.setattr(pseudo_labels, "_write", stopped)
    with pytest.raises(KeyboardInterrupt):
        taught(dataset, teacher, tmp_path / "maps")
    (folder,) = (tmp_path / "maps").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["case_00.nii.gz", "case_02.nii.gz"]
    cases = taught(dataset, teacher, tmp_path / "maps")
    assert calls == [f"case_0{index}.nii.gz" for index in (0, 2, 4, 4, 5)]
    taught(dataset, teacher, tmp_path / "maps")
    assert len(calls) == 5
    whole = taught(dataset, teacher, tmp_path / "whole")
    for one, other in zip(cases, whole, strict=True):
        assert Path(one["soft"]).read_bytes() == Path(other["soft"]).read_bytes()
    again = taught(dataset, teacher, tmp_path / "maps", views=2)  # other maps, elsewhere
    assert {case["soft"] for case in again}.isdisjoint(case["soft"] for case in cases)
    with pytest.raises(UserError, match="teacher_views is 3"):
        taught(dataset, teacher, tmp_path / "maps", views=3)


def test_maps_of_weights_that_see_another_size_are_made_anew(dataset: Path, teacher: str) -> None:
    """`calibrate --size` changes it, and leaves the weights as they are."""
    file = Path(teacher).with_suffix(".json")
    metadata, folders = json.loads(file.read_text()), []
    for size in (32, 48, 32):
        metadata["preprocessing"]["size"] = size
        file.write_text(json.dumps(metadata))
        folders.append(pseudo_labels.map_folder("maps", teacher, []))
    assert folders[0] == folders[2] != folders[1]


def test_maps_of_a_case_that_is_seen_otherwise_are_made_anew(
    dataset: Path, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next(dataset.rglob("case_00.nii.gz"))
    plain: Any = {"name": "case_00", "image": str(path)}
    cases = [plain, plain | {"intensity": "window:-1350,150"}, plain | {"lung": str(path)}]
    folders = [pseudo_labels.map_folder("maps", teacher, [case]) for case in cases]
    monkeypatch.setattr(slice_cache, "code_digest", lambda *rooms: "other lungs")
    folders.append(pseudo_labels.map_folder("maps", teacher, [plain]))
    assert len(set(folders)) == 4
    again = plain | {"label": "finer.nii.gz", "label_codes": [1]}  # which the teacher does not see
    assert pseudo_labels.map_folder("maps", teacher, [again]) == folders[3]


def test_students_of_an_experiment_have_the_teacher_of_their_fold_and_share_the_maps(
    dataset: Path, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(experiments, "train_once", lambda files, run, **given: calls.append({**given, "files": files}))
    monkeypatch.setattr(experiments, "run_workflow", lambda *arguments, **given: None)
    monkeypatch.setattr(experiments, "write_tables", lambda folder, *arguments: folder)
    rows = read_experiment("distil", ["width 16", "width 24 taught"])
    start = partial(run_experiment, rows, str(dataset), str(tmp_path / "out"), folds=[0], steps=20)
    for absent in (None, str(tmp_path / "none.pt")):
        with pytest.raises(UserError):
            start(teacher=absent)
        assert not (tmp_path / "out").exists()
    named = teacher.replace("teacher_0", "teacher_{fold}")
    start(teacher=named)
    plain, student = calls
    assert "teacher" not in plain
    assert (student["teacher"], student["fold"]) == (named, 0)
    assert student["soft_maps"] == str(tmp_path / "out" / "soft_maps")
    assert DISTIL in student["files"]
    with pytest.raises(UserError, match="--teacher None, and width 24 taught with a teacher"):
        start()
    alone = read_experiment("distil", ["width 16"])
    with pytest.raises(UserError, match="no variant with a teacher"):
        run_experiment(alone, str(dataset), str(tmp_path / "out"), folds=[0], steps=20, teacher="model.pt")


def test_one_table_has_one_teacher(
    dataset: Path, make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables: list[list[int]] = []
    monkeypatch.setattr(experiments, "train_once", lambda files, run, **given: run)
    monkeypatch.setattr(
        experiments, "run_workflow", lambda files, output_dir, **given: write_json(Path(output_dir) / FILES[-1], {})
    )
    monkeypatch.setattr(
        experiments, "write_tables", lambda folder, whole, runs, record: tables.append([run.fold for run in runs])
    )
    for name, fold in (("a", 0), ("a", 1), ("b", 0), ("b", 1)):
        make_checkpoint(tmp_path / f"{name}_{fold}.pt", seed=ord(name) + fold, size=32, data=describe(dataset, fold))
    rows, out = read_experiment("distil", ["width 16 taught"]), tmp_path / "out"
    start = partial(run_experiment, rows, str(dataset), str(out), steps=20, device="cpu")
    start(folds=[0], teacher=str(tmp_path / "a_{fold}.pt"))
    place = out / "width_16_taught" / "seed_0" / "fold_0"
    assert read_json(place / "begun.json")["teacher_sha256"] == sha256(tmp_path / "a_0.pt")
    for folds in ([0], [1]):
        with pytest.raises(UserError, match=r"fold_0: was begun with another teacher than --teacher \S*b_\{fold\}\.pt"):
            start(folds=folds, teacher=str(tmp_path / "b_{fold}.pt"))
    assert not place.with_name("fold_1").exists()
    start(folds=[1], teacher=str(tmp_path / "a_{fold}.pt"))
    assert tables[-1] == [0, 1]
    record = {key: value for key, value in read_json(place / "begun.json").items() if key != "teacher_sha256"}
    write_json(place / "begun.json", record)  # as earlier versions wrote it
    start(folds=[1], teacher=str(tmp_path / "a_{fold}.pt"))


def test_a_student_is_trained_with_the_overlay_and_its_metadata_name_the_teacher(
    dataset: Path, teacher: str, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    files = ["configs/train.yaml", "configs/presets/weights.yaml", DISTIL, "configs/presets/experiment_cpu.yaml"]
    small = {"network_def#base_width": 4, "spatial_size": 32, "batch_size": 4, "slices_per_epoch": 8, "steps": 8}
    start = partial(train_once, files, tmp_path / "run", dataset_dir=str(dataset), fold=0, device="cpu", **small)
    metadata = read_metadata(start(teacher=teacher.replace("teacher_0", "teacher_{fold}")))
    assert metadata["teacher"]["sha256"] == read_metadata(teacher)["sha256"]
    assert metadata["teacher"]["data"]["fold"] == metadata["data"]["fold"] == 0
    (maps,) = (tmp_path / "run" / "soft_maps").iterdir()
    assert len(list(maps.iterdir())) == 4
    child = describe_parent(str(tmp_path / "run" / "model.pt"))
    assert child is not None
    assert child["datasets"] == ["small"]
