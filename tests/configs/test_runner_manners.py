"""`python -m monai.bundle run` as people mistype, interrupt and prolong it."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from tests.bundle_runner import NARROW, ROOT, bundle_command, environment, heed_ctrl_c, run_bundle, run_bundle_process

TRAIN = "configs/train.yaml"
INFERENCE = "configs/inference.yaml"
SIZES = "multiples of 16 up to 4,096, which the networks can halve"
CPU = f"['{TRAIN}','configs/presets/cpu.yaml']"
MakeDataset = Callable[..., Path]


def epochs(run: Path, column: str) -> list[str]:
    return [row["epoch"] for row in csv.DictReader((run / "history.csv").open()) if row[column]]


def test_training_without_data_ends_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    data, out = tmp_path / "none", tmp_path / "run"
    done = run_bundle_process("training", TRAIN, ok=False, dataset_dir=data, output_dir=out, device="cpu")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"error: {data}: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["loss", "network_def"])
def test_a_word_in_place_of_a_definition_is_refused_by_its_name(
    name: str, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settings = {"dataset_dir": make_dataset(), "output_dir": run, "device": "cpu", name: "dice"}
    done = run_bundle("training", TRAIN, ok=False, **settings)
    assert f"error: {name} is 'dice'; expected: a definition" in done.stderr
    assert not run.exists()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("network_def#fusion", "foo", "fusion is 'foo'; expected: none, add, concat, attention"),
        ("network_def#in_channels", 2, "network_def#in_channels is 2; expected: 1, as the preprocessing gives them"),
        ("loss#loss_form", "avg", "loss_form is 'avg'; expected: sum, paper_literal, mean"),
        ("edge_method", "foo", "method is 'foo'; expected: inner, gradient, canny, sobel"),
        ("window", 250, "window is 250; expected: [LO, HI] with LO < HI in HU"),
        ("window", "[250,-1250]", "window is [250, -1250]; expected: [LO, HI] with LO < HI in HU"),
        ("spatial_size", 8192, f"spatial_size is 8192; expected: {SIZES}"),
        ("seed", "x", "seed is 'x'; expected: a whole number from 0"),
        ("batch_size", 0, "batch_size is 0; expected: a whole number from 1"),
        ("max_epochs", 0, "max_epochs is 0; expected: a whole number from 1"),
        ("val_interval", 0, "val_interval is 0; expected: a whole number from 1"),
        ("learning_rate", "abc", "learning_rate is 'abc'; expected: a number, 0 or more"),
        ("learning_rate", -1, "learning_rate is -1; expected: a number, 0 or more"),
    ],
)
def test_a_value_that_no_training_can_have_is_refused_in_one_line(
    name: str, value: object, expected: str, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settings = {**NARROW, "dataset_dir": make_dataset(), "output_dir": run, name: value}
    assert run_bundle("training", TRAIN, ok=False, **settings).stderr.splitlines()[-1] == f"error: {expected}"
    assert not run.exists()


@pytest.mark.parametrize(("seed", "first"), [(7, 7), ("7", 7), (7.0, 7), ("7.0", 7), ("x", 0), ("-1", 0)])
def test_the_first_weights_have_the_seed_of_all_that_follows(seed: object, first: int) -> None:
    parser = ConfigParser()
    parser.read_config(str(ROOT / TRAIN))
    parser["seed"] = seed
    assert parser.get_parsed_content("first_seed") == first


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("window", "[250,-1250]", "window is [250, -1250]; expected: [LO, HI] with LO < HI in HU"),
        (
            "spatial_size",
            8192,
            f"spatial_size is 8192; expected: {SIZES}",
        ),
        ("slices_at_once", 0, "slices_at_once is 0; expected: a whole number from 1"),
    ],
)
def test_a_value_that_no_inference_can_have_is_refused_in_one_line(
    name: str, value: object, expected: str, make_scan: Callable[..., tuple[Path, object]], tmp_path: Path
) -> None:
    settings = {"dataset_dir": make_scan()[0], "output_dir": tmp_path / "out", name: value}
    done = run_bundle("inference", INFERENCE, ok=False, **settings)
    assert done.stderr.splitlines()[-1] == f"error: {expected}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("device", ["abacus", "meta"])
def test_a_device_that_is_none_is_refused_in_one_line(
    device: str, make_scan: Callable[..., tuple[Path, object]], make_dataset: MakeDataset, tmp_path: Path
) -> None:
    for workflow, config, data in (("training", TRAIN, make_dataset()), ("inference", INFERENCE, make_scan()[0])):
        settings = {"dataset_dir": data, "output_dir": tmp_path / "out", "device": device}
        last = run_bundle(workflow, config, ok=False, **settings).stderr.splitlines()[-1]
        assert last.startswith(f"error: device is '{device}' (")
        assert "; expected: cpu" in last
        assert not (tmp_path / "out").exists()


def test_a_seed_that_is_none_is_refused_by_the_scheme(make_dataset: MakeDataset, tmp_path: Path) -> None:
    settings = {"dataset_dir": make_dataset(), "output_dir": tmp_path / "run", "device": "cpu", "seed": "x"}
    done = run_bundle("training", "configs/semi_supervised.yaml", ok=False, **settings)
    assert done.stderr.splitlines()[-1] == "error: seed is 'x'; expected: a whole number from 0"


def test_a_replacement_that_cannot_start_removes_nothing(trained: Path, tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in trained.parent.iterdir()}
    settings = {"output_dir": trained.parent, "overwrite": "true", "device": "cpu"}
    run_bundle("training", TRAIN, ok=False, dataset_dir=tmp_path / "none", **settings)
    assert {path.name: path.stat().st_mtime_ns for path in trained.parent.iterdir()} == before


def test_the_last_epoch_is_validated_and_a_training_can_be_prolonged(make_dataset: MakeDataset, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = {**NARROW, "dataset_dir": make_dataset(), "output_dir": run, "val_interval": 2}
    run_bundle("training", TRAIN, **{**settings, "max_epochs": 3})
    assert epochs(run, "val_mean_dice") == ["2", "3"]
    run_bundle("training", TRAIN, **{**settings, "max_epochs": 5}, resume="true")
    assert epochs(run, "train_loss") == ["1", "2", "3", "4", "5"]
    assert epochs(run, "val_mean_dice") == ["2", "3", "4", "5"]
    assert torch.load(run / "last.pt", weights_only=True)["epoch"] == 5


def test_a_cycle_of_the_learning_rate_cannot_be_prolonged(make_dataset: MakeDataset, tmp_path: Path) -> None:
    settings = {**NARROW, "dataset_dir": make_dataset(), "output_dir": tmp_path / "run", "amp": "false"}
    run_bundle("training", CPU, **{**settings, "max_epochs": 1})
    before = (tmp_path / "run" / "last.pt").read_bytes()
    done = run_bundle("training", CPU, ok=False, **{**settings, "max_epochs": 2}, resume="true")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "total steps of the schedule" in last
    assert "--checkpoint" in last
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_ctrl_c_says_what_is_kept(make_dataset: MakeDataset, bundle_root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = {**NARROW, "max_epochs": 500, "dataset_dir": make_dataset(), "output_dir": run}
    process = subprocess.Popen(
        bundle_command("training", TRAIN, **settings),
        cwd=bundle_root,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    deadline = time.monotonic() + 120
    while not (run / "last.pt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode != 0
    epoch = torch.load(run / "last.pt", weights_only=True)["epoch"]
    lines = [line for line in printed.splitlines() if line.strip()]  # the progress bar wipes itself out with blanks
    assert lines[-1] == (
        f"stopped: {run / 'last.pt'} keeps the state after epoch {epoch}; "
        "the same command with --resume true continues from there"
    )
    assert "Traceback" not in printed


HIDE = """
import sys


class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Hidden())
"""
COMMANDS = {  # verify_metadata without jsonschema ends in a TypeError of MONAI's own, before any code of the bundle
    "mlflow": f"run training --config_file {TRAIN} --tracking mlflow",
    "onnxscript": (
        "onnx_export --net_id network_def --config_file configs/inference.yaml --meta_file configs/metadata.json "
        "--ckpt_file models/model.pt --filepath OUT/model.onnx --input_shape [1,1,64,64]"
    ),
}


@pytest.mark.parametrize("package", ["mlflow", pytest.param("onnxscript", marks=pytest.mark.slow)])
def test_a_missing_optional_package_is_named_in_the_last_line(
    package: str,
    make_dataset: MakeDataset,
    bundle_root: Path,
    tmp_path: Path,
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(HIDE.format(package=package))
    command = [sys.executable, "-m", "monai.bundle", *COMMANDS[package].replace("OUT", str(tmp_path)).split()]
    if package == "mlflow":
        settings = {**NARROW, "dataset_dir": make_dataset(), "output_dir": tmp_path / "run"}
        command += [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    done = subprocess.run(
        command,
        cwd=bundle_root,
        env={**environment(), "PYTHONPATH": str(hidden)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode != 0, done.stdout[-500:]
    assert package in done.stderr.splitlines()[-1], done.stderr[-1500:]
