"""The commands of the contract, end to end."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.bundle_runner import NARROW, run_bundle
from tests.conftest import OBLIQUE

MakeDataset = Callable[..., Path]
TRAIN = "configs/train.yaml"
EVALUATE = f"['{TRAIN}','configs/evaluate.yaml']"
INFERENCE = "configs/inference.yaml"
MEASURES = ("dice", "iou", "sensitivity", "precision", "mae", "e_measure", "s_measure")


def test_training_leaves_weights_metadata_state_history_and_curve(trained: Path) -> None:
    names = {path.name for path in trained.parent.iterdir()}
    assert names == {"model.pt", "model.json", "last.pt", "history.csv", "curve.png", "tensorboard"}
    rows = list(csv.DictReader((trained.parent / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 <= float(row["val_mean_dice"]) <= 1 for row in rows)
    measures = {f"val_mean_{name}" for name in MEASURES}
    assert measures | {"val_positive_dice", "val_loss"} <= set(rows[0])
    scalars = EventAccumulator(str(trained.parent / "tensorboard")).Reload().Tags()["scalars"]
    assert measures <= set(scalars)
    metadata = json.loads(trained.with_suffix(".json").read_text())
    assert measures <= set(metadata["figures"]["validation"])
    assert metadata["network"]["arguments"]["base_width"] == 4
    expected = {"size": 32, "window": [-1250, 250], "intensity": "auto", "field_of_view": "scan"}
    assert metadata["preprocessing"] == {**expected, "z_score": True, "lung_only": False}
    assert metadata["data"]["name"] == "small"
    assert metadata["data"]["training_cases"] == 2
    last = torch.load(trained.parent / "last.pt", weights_only=True)
    assert last["epoch"] == 2


def test_a_used_output_folder_is_refused_in_the_last_line(trained: Path, tmp_path: Path) -> None:
    before = trained.read_bytes()
    done = run_bundle(
        "training", TRAIN, ok=False, dataset_dir=tmp_path / "dataset", output_dir=trained.parent, **NARROW
    )
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"error: {trained.parent}: holds results already (curve.png")
    assert trained.read_bytes() == before


def test_missing_data_is_said_in_the_last_line(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    done = run_bundle(
        "training",
        TRAIN,
        ok=False,
        dataset_dir=tmp_path / "nothing",
        output_dir=tmp_path / "run",
        **NARROW,
    )
    # A list of everything that is expected follows, so the message has several lines.
    message = done.stderr[done.stderr.rindex("error: ") :]
    assert str(tmp_path / "nothing") in message
    assert "Traceback" not in message


def test_evaluation_writes_a_row_a_case_and_a_row_a_slice(trained: Path, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    run_bundle(
        "evaluation",
        EVALUATE,
        dataset_dir=tmp_path / "dataset",
        checkpoint=trained,
        output_dir=tables,
        device="cpu",
        fold=0,
        voxel_size_known="true",
    )
    cases, slices = pd.read_csv(tables / "metrics.csv"), pd.read_csv(tables / "slices.csv")
    assert sorted(cases["case"]) == ["case_00", "case_02"]
    assert len(slices) == 12
    summary = json.loads((tables / "summary.json").read_text())
    assert summary["split"] == "validation"
    assert summary["metric_grid"] == "scan"
    assert summary["figures"]["case"]["dice"]["n"] == 2
    assert summary["figures"]["case"]["dice"]["mean"] == pytest.approx(cases["dice"].mean())
    # Independent of the bundle's metrics: the masks of inference against the labels.
    masks = tmp_path / "masks"
    run_bundle(
        "inference",
        INFERENCE,
        dataset_dir=tmp_path / "dataset" / "images",
        checkpoint=trained,
        output_dir=masks,
        device="cpu",
    )
    for _, row in cases.iterrows():
        mask = nib.load(masks / f"{row['case']}_infection.nii.gz").get_fdata() > 0
        truth = nib.load(tmp_path / "dataset" / "labels" / f"{row['case']}.nii.gz").get_fdata() > 0
        dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        assert row["dice"] == pytest.approx(dice, abs=1e-9)
        assert row["tp"] == (mask & truth).sum()
        assert row["volume_ml"] == pytest.approx(truth.sum() / 1000)


def test_evaluation_has_the_figures_of_its_tables_in_state_metrics(
    bundle_root: Path, trained: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(bundle_root)
    flow = ConfigWorkflow(
        [TRAIN, "configs/evaluate.yaml"],
        workflow_type="train",
        logging_file=False,
        meta_file="configs/metadata.json",
        dataset_dir=str(tmp_path / "dataset"),
        checkpoint=str(trained),
        output_dir=str(tmp_path / "tables"),
        device="cpu",
    )
    flow.initialize()
    flow.run()
    state = flow.parser.get_parsed_content("validate#evaluator").state
    figures = json.loads((tmp_path / "tables" / "summary.json").read_text())["figures"]
    assert state.key_metric_name == "case_dice"
    for name in MEASURES:
        for part in ("case", "slice", "positive_slice"):
            assert state.metrics[f"{part}_{name}"] == figures[part][name]["mean"]
    assert state.metrics["pooled_iou"] == figures["pooled"]["iou"]


def test_evaluation_on_the_network_grid(trained: Path, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    settings = {"dataset_dir": tmp_path / "dataset", "checkpoint": trained, "output_dir": tables, "device": "cpu"}
    run_bundle("evaluation", EVALUATE, metric_grid="network", z_score="false", **settings)
    assert set(pd.read_csv(tables / "slices.csv")["size"]) == {32 * 32}
    seen = json.loads((tables / "summary.json").read_text())["preprocessing"]
    assert (seen["size"], seen["z_score"]) == (32, False)  # what was applied, whatever the metadata state


def test_the_summary_of_an_evaluation_states_what_was_applied_and_which_cases_the_weights_may_know(
    trained: Path, tmp_path: Path
) -> None:
    settings = {"dataset_dir": tmp_path / "dataset", "checkpoint": trained, "device": "cpu"}
    anew = {"fold": 1, "test_time_flips": 2, "tables#threshold": 0.75}
    for name, changed in (("plain", {}), ("anew", anew)):
        run_bundle("evaluation", EVALUATE, output_dir=tmp_path / name, **settings, **changed)
    plain, other = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("plain", "anew"))
    assert plain["operating_point"] == {"threshold": 0.5, "test_time_flips": 1, "through_plane_mm": 0.0}
    assert other["operating_point"] == {"threshold": 0.75, "test_time_flips": 2, "through_plane_mm": 0.0}
    assert plain["backend"] == {"name": "torch", "precision": "fp32", "version": torch.__version__}
    known = f"the weights {plain['checkpoint'][:12]} were trained with fold 0 left out: they may know validation cases"
    assert not any(known in warning for warning in plain["dataset"]["warnings"])
    assert f"{known} of fold 1" in other["dataset"]["warnings"]


def test_entries_without_weights_stop_with_one_line(tmp_path: Path) -> None:
    scan = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.full((8, 8, 2), -500, np.int16), np.eye(4)), scan)
    done = run_bundle(
        "inference", INFERENCE, ok=False, dataset_dir=scan, output_dir=tmp_path / "o", checkpoint=tmp_path / "no.pt"
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {tmp_path / 'no.pt'}: no such weights")
    assert "--checkpoint" in last
    assert "make demo" in last


def test_masks_follow_the_scan_through_every_way_of_storing_it(turned, trained: Path, tmp_path: Path) -> None:
    image = nib.load(tmp_path / "dataset" / "images" / "case_00.nii.gz")
    array = np.asarray(image.dataobj)
    scans = tmp_path / "stored"
    scans.mkdir()
    plain = nib.Nifti1Image(array, np.diag([-0.7, -0.7, 5.0, 1.0]))
    stored = {"plain": plain, "oblique": nib.Nifti1Image(array, OBLIQUE), "one": plain.slicer[..., 2:3]}
    for axes in ("RAS", "SAR", "PIR", "LIA"):
        stored[axes] = turned(plain, axes)
    for name, scan in stored.items():
        scan.set_sform(scan.affine, 2)
        scan.set_qform(scan.affine, 1)
        nib.save(scan, scans / f"{name}.nii.gz")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    (scans / "pictures").mkdir()
    Image.fromarray(pixels).save(scans / "pictures" / "slice.png")
    out = tmp_path / "masks"
    settings = {"dataset_dir": scans, "checkpoint": trained, "output_dir": out, "device": "cpu"}
    run_bundle("inference", INFERENCE, **settings)

    masks = {name: nib.load(out / f"{name}_infection.nii.gz") for name in stored}
    for name, scan in stored.items():
        source = nib.load(scans / f"{name}.nii.gz")
        assert masks[name].shape == scan.shape
        assert masks[name].get_data_dtype() == np.uint8
        np.testing.assert_array_equal(masks[name].affine, source.affine)
        assert (masks[name].header["sform_code"], masks[name].header["qform_code"]) == (2, 1)
    reference = np.asarray(masks["plain"].dataobj)
    assert 0 < reference.mean() < 1
    np.testing.assert_array_equal(np.asarray(masks["oblique"].dataobj), reference)
    np.testing.assert_array_equal(np.asarray(masks["one"].dataobj), reference[..., 2:3])
    for axes in ("RAS", "SAR", "PIR", "LIA"):
        back = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt(axes), nib.orientations.io_orientation(plain.affine)
        )
        turned = nib.orientations.apply_orientation(np.asarray(masks[axes].dataobj), back)
        np.testing.assert_array_equal(turned, reference, err_msg=axes)
    assert Image.open(out / "pictures" / "slice_infection.png").size == (30, 20)

    again = run_bundle("inference", INFERENCE, ok=False, **settings)
    assert "holds results already" in again.stderr.splitlines()[-1]


@pytest.mark.slow
def test_all_work_from_another_folder(trained: Path, tmp_path: Path, bundle_root: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    common = {"bundle_root": bundle_root, "dataset_dir": tmp_path / "dataset", "cwd": elsewhere}
    train = str(bundle_root / TRAIN)
    evaluate = f"['{train}','{bundle_root / 'configs/evaluate.yaml'}']"
    run_bundle("training", train, output_dir=tmp_path / "run2", **common, **NARROW)
    checkpoint = {"checkpoint": tmp_path / "run2" / "model.pt", "device": "cpu"}
    run_bundle("evaluation", evaluate, output_dir=tmp_path / "tables2", **checkpoint, **common)
    common["dataset_dir"] = tmp_path / "dataset" / "images"
    run_bundle("inference", str(bundle_root / INFERENCE), output_dir=tmp_path / "masks2", **checkpoint, **common)
    assert len(list((tmp_path / "masks2").rglob("*.nii.gz"))) == 4
    assert list(elsewhere.iterdir()) == []


def test_evaluation_takes_the_fold_that_the_checkpoint_did_not_train_on(
    make_dataset: MakeDataset, tmp_path: Path
) -> None:
    # Fewer epochs than the validation interval: the last one is validated all the same.
    settings = {**NARROW, "max_epochs": 1, "val_interval": 5, "network_def#include_top": "false"}
    run, dataset = tmp_path / "run", make_dataset()
    run_bundle("training", TRAIN, dataset_dir=dataset, output_dir=run, fold=1, **settings)
    metadata = json.loads((run / "model.json").read_text())
    assert (metadata["figures"]["epoch"], metadata["figures"]["split"]) == (1, "validation")
    assert metadata["network"]["arguments"]["include_top"] is False
    tables = tmp_path / "tables"
    run_bundle(
        "evaluation", EVALUATE, dataset_dir=dataset, checkpoint=run / "model.pt", output_dir=tables, device="cpu"
    )
    assert sorted(pd.read_csv(tables / "metrics.csv")["case"]) == ["case_01", "case_03"]


def test_fine_tuning_starts_from_weights(trained: Path, tmp_path: Path) -> None:
    settings = {**NARROW, "learning_rate": 1e-12, "max_epochs": 1}
    out = tmp_path / "tuned"
    done = run_bundle(
        "training", TRAIN, dataset_dir=tmp_path / "dataset", output_dir=out, checkpoint=trained, **settings
    )
    assert f"started from {trained}" in done.stdout
    before, after = (torch.load(path, weights_only=True) for path in (trained, out / "model.pt"))
    torch.testing.assert_close(after["out.weight"], before["out.weight"], rtol=0, atol=1e-9)


@pytest.mark.slow
def test_mlflow_tracking_by_monais_switch(make_dataset: MakeDataset, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    run_bundle(
        "training",
        TRAIN,
        dataset_dir=make_dataset(),
        output_dir=tmp_path / "run",
        tracking="mlflow",
        **NARROW,
    )
    assert (tmp_path / "run" / "mlruns.db").exists()


def test_training_without_validation_cases_keeps_the_last_weights(make_dataset: MakeDataset, tmp_path: Path) -> None:
    settings = {**NARROW, "validate#dataset#data": "[]"}
    run_bundle("training", TRAIN, dataset_dir=make_dataset(), output_dir=tmp_path / "run", **settings)
    assert json.loads((tmp_path / "run" / "model.json").read_text())["figures"] == {"epoch": 2}
    best = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    last = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["network"]
    assert all(torch.equal(best[key], last[key]) for key in last)
