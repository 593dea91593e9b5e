"""Experiments: the table's figures against a hand calculation,
and one small set end to end with a stop in between."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from PIL import Image

from scripts.errors import UserError
from scripts.files import sha256
from scripts.research import experiments, workflows
from scripts.research.experiment_config import Variant, experiment_names, read_experiment
from scripts.research.experiment_tables import Run, draw_curves
from scripts.research.experiments import run_experiment
from scripts.training.history import draw_curve
from scripts.training.tables import FILES
from scripts.version import BUNDLE
from tests.bundle_runner import heed_ctrl_c


def distinct_trainings() -> dict[str, list[tuple[Variant, list[str], str]]]:
    """By experiment its variants with their files and budget, without those that an earlier one
    trains in the same way."""
    seen: set[str] = set()
    found: dict[str, list[tuple[Variant, list[str], str]]] = {}
    for name in experiment_names():
        experiment = read_experiment(name)
        for variant in experiment.variants:
            files = [*experiment.files, *variant.files]
            key = json.dumps([files, variant.settings, experiment.budget], sort_keys=True)
            if key not in seen:
                seen.add(key)
                found.setdefault(name, []).append((variant, files, experiment.budget))
    return found


@pytest.mark.parametrize("name", distinct_trainings())
def test_every_variant_fits_its_loss_at_the_size_of_its_budget(name: str) -> None:
    for variant, overlays, budget in distinct_trainings()[name]:
        parser = ConfigParser()
        files = [experiments.TRAIN, *overlays, budget]
        parser.read_config([str(BUNDLE / file) for file in files])
        parser.update({**variant.settings, "network_def#base_width": 4, "bundle_root": ".", "device": "cpu"})
        network, loss = parser.get_parsed_content("network_def").train(), parser.get_parsed_content("loss")
        size = parser.get_parsed_content("spatial_size")
        volume = budget.endswith("cpu3d.yaml")
        sees = 2 if read_experiment(name).classes else 1
        shape = (2, 1, *parser.get_parsed_content("patch_size")) if volume else (2, sees, size, size)
        label = torch.zeros(2, 3 if sees == 2 else 1 if volume else 2, *shape[2:])
        label[:, :, 10:40, 20:60] = 1
        value = loss(network(torch.randn(shape)), label)
        assert math.isfinite(float(value)), variant.name
        value.backward()


@pytest.fixture
def budget(tmp_path: Path) -> str:
    content = yaml.safe_load((BUNDLE / "configs/presets/experiment_cpu.yaml").read_text())
    content |= {"spatial_size": 32, "batch_size": 4, "max_epochs": 1, "val_interval": 1, "network_def#base_width": 4}
    path = tmp_path / "budget.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_a_set_is_trained_evaluated_stopped_and_finished(
    make_dataset: Callable[..., Path], budget: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = make_dataset(cases=4, folds=2), tmp_path / "out"
    chosen = read_experiment("table4", ["baseline", "ESM + ASSM + AFM"])
    run_workflow, calls = workflows.run_workflow, []

    def stopped(*arguments: Any, **settings: Any) -> None:
        calls.append(settings["output_dir"])
        if len(calls) == 4:  # an evaluation, whose training has ended
            raise KeyboardInterrupt
        run_workflow(*arguments, **settings)

    for module in (workflows, experiments):
        monkeypatch.setattr(module, "run_workflow", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(chosen, str(data), str(out), [budget], steps=7, device="cpu")
    text = run_experiment(chosen, str(data), str(out), [budget], steps=7, device="cpu").read_text()
    assert len(calls) == len(set(calls)) + 1 == 9  # the one that was stopped came twice
    rows = pd.read_csv(out / "runs.csv")
    assert list(rows["variant"]) == ["baseline"] * 2 + ["ESM + ASSM + AFM"] * 2
    assert list(rows["cases"]) == [2] * 4
    assert list(rows["weights_sha256"]) == [
        sha256(out / folder / "seed_0" / f"fold_{fold}" / "run" / "model.pt")
        for folder in ("baseline", "ESM_ASSM_AFM")
        for fold in (0, 1)
    ]
    metrics = pd.read_csv(out / "baseline" / "seed_0" / "fold_1" / "tables" / "metrics.csv")
    assert rows["dice"][1] == pytest.approx(metrics["dice"].mean())
    cases = pd.read_csv(out / "cases.csv").query("variant == 'baseline' and fold == 1")
    assert list(cases["case"]) == list(metrics["case"])
    assert list(cases["dice"]) == list(metrics["dice"])
    assert Image.open(out / "curves.png").size == (1000, 400)
    assert all(len(line) <= 100 for line in text.splitlines() if not line.startswith("|"))
    prose = " ".join(text.split())  # in lines of at most 100 columns
    assert f"(datalist.json {sha256(data / 'datalist.json')[:12]})" in prose
    assert "The last epoch counts" in prose
    assert "| baseline | " in text
    assert "85.96 ± 0.03" in text
    assert re.search(r"\| [+-]\d+\.\d \([+-]\d+\.\d to [+-]\d+\.\d\)", text)
    assert ", n = 4" in text
    assert rows["machine"][0].startswith(f"cpu, {torch.get_num_threads()} threads, torch {torch.__version__}, ")
    assert f"; {rows['machine'][0]}. Every run" in prose
    copy = out / "ESM_ASSM_AFM" / "seed_0" / "fold_0_old"
    shutil.copytree(copy.with_name("fold_0"), copy)
    assert "the runs (seeds 0; folds 0, 1)" in prose
    assert "4 cases of small, split by patient with seed 0" in prose
    assert not list(out.rglob("last.pt"))
    assert "Budget budget.yaml, steps 7; version" in prose
    Path(budget).write_text(Path(budget).read_text() + "# comments are no settings\n")
    more = read_experiment("table4", ["ESM"])
    text = run_experiment(more, str(data), str(out), [budget], folds=[1], steps=7, device="cpu").read_text()
    assert len(pd.read_csv(out / "runs.csv")) == 5  # a later call adds to the table
    assert [line.split("|")[1].strip() for line in text.splitlines()[4:7]] == ["baseline", "ESM", "ESM + ASSM + AFM"]
    begun = out / "ESM_ASSM_AFM" / "seed_0" / "fold_0" / "begun.json"
    kept = begun.read_text()
    begun.write_text(kept.replace('"steps": 7', '"steps": 6'))
    with pytest.raises(UserError, match="ESM_ASSM_AFM/seed_0/fold_0: was begun with another configuration"):
        run_experiment(more, str(data), str(out), [budget], folds=[1], steps=7)  # no run of this call
    begun.write_text(kept)
    mask = data / json.loads((data / "datalist.json").read_text())["training"][0]["label"]
    drawn = nib.load(mask)
    nib.save(nib.Nifti1Image(np.zeros(drawn.shape, np.uint8), drawn.affine), mask)  # corrected in place
    with pytest.raises(UserError, match="began with another masks_sha256"):
        run_experiment(chosen, str(data), str(out), [budget], steps=7)
    record = json.loads((out / "experiment.json").read_text())
    (out / "experiment.json").write_text(json.dumps({key: record[key] for key in record if key != "masks_sha256"}))
    run_experiment(chosen, str(data), str(out), [budget], steps=7)  # up to 0.29 masks were not recorded
    (data / "datalist.json").write_text((data / "datalist.json").read_text() + " ")
    with pytest.raises(UserError, match="began with another datalist_sha256"):
        run_experiment(chosen, str(data), str(out), [budget], steps=7)
    with pytest.raises(UserError, match="began with another budget"):
        run_experiment(chosen, str(data), str(out), [budget], steps=8)
    other = read_experiment("table3", ["ResUNet_C_1"])
    with pytest.raises(UserError, match="began with another experiment"):
        run_experiment(other, str(data), str(out), [budget])


@pytest.mark.parametrize(
    ("columns", "of_class", "title"),
    [
        (["val_mean_dice", "val_positive_dice"], None, "validation: Dice of slices with lesion"),
        (["val_mean_dice", "val_case_dice"], None, "validation: Dice of volumes"),
        (["val_mean_dice", "val_ground_glass_dice"], "ground_glass", "validation: Dice of ground glass"),
    ],
)
def test_the_curve_of_the_validation_is_that_of_the_table(
    columns: list[str], of_class: str | None, title: str, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    history = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [3.0, 2.0, 1.0]})
    for number, column in enumerate(columns):
        history[column] = [math.nan, 0.1 + number, 0.2 + number]  # not every epoch is validated
    history.to_csv(tmp_path / "run" / "history.csv", index=False)
    loss, validation = draw_curves([Run("a", 0, 0, "1", tmp_path)], of_class).figure.axes
    assert (loss.get_title(), validation.get_title()) == ("training loss", title)
    assert loss.lines[0].get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]
    assert validation.lines[0].get_xydata().tolist() == [[2, pytest.approx(1.1)], [3, pytest.approx(1.2)]]


def test_one_validation_is_seen(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    rows = [{"epoch": 1.0, "train_loss": 2.0}, {"epoch": 2.0, "train_loss": 1.0, "val_mean_dice": 0.5}]
    pd.DataFrame(rows).assign(val_case_dice=[math.nan, 0.5]).to_csv(tmp_path / "run" / "history.csv", index=False)
    for drawn in (draw_curve(rows), draw_curves([Run("a", 0, 0, "1", tmp_path)])):
        loss, validation = (axis.lines[0] for axis in drawn.figure.axes)
        assert (loss.get_marker(), validation.get_marker()) == ("", ".")
        assert validation.get_xydata().tolist() == [[2, 0.5]]


@pytest.mark.usefixtures("one_thread")  # as each of the processes has
@pytest.mark.slow
def test_trainings_side_by_side_are_those_one_after_the_other(
    make_dataset: Callable[..., Path], budget: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, chosen = str(make_dataset(cases=4, folds=2)), read_experiment("table4", ["baseline"])
    tables = {}
    for processes in (1, 2):
        out = tmp_path / str(processes)
        text = run_experiment(chosen, data, str(out), [budget], steps=4, device="cpu", processes=processes).read_text()
        tables[processes] = text, (out / "runs.csv").read_text()
    assert tables[1] == tables[2]  # with the weights' SHA-256
    assert "trainings: 100%" in capfd.readouterr().err
    places = [tmp_path / "2" / "baseline" / "seed_0" / f"fold_{fold}" for fold in (0, 1)]
    assert all("evaluation" in (place / "log.txt").read_text() for place in places)
    (places[1] / "tables" / FILES[-1]).unlink()
    begun = places[1] / "begun.json"
    begun.write_text(begun.read_text().replace('"steps": 4', '"steps": 3'))
    with pytest.raises(UserError, match="fold_1: was begun with another configuration"):
        run_experiment(chosen, data, str(tmp_path / "2"), [budget], steps=4, device="cpu", processes=2)
    with pytest.raises(UserError, match=r"0 processes; expected: .*1 process or more"):
        run_experiment(chosen, data, str(tmp_path / "2"), [budget], steps=4, processes=0)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_trainings_side_by_side_end_with_the_command(
    make_dataset: Callable[..., Path], budget: str, tmp_path: Path, how: signal.Signals
) -> None:
    data, out = make_dataset(cases=4, folds=2), tmp_path / "out"
    Path(budget).write_text(Path(budget).read_text().replace("max_epochs: 1", "max_epochs: 4000"))
    words = ["experiment", "table4", data, out, "--variants", "baseline,ESM", "--budget", budget, "--processes", 2]
    command = [sys.executable, "-m", "scripts", *map(str, words), "--device", "cpu"]
    states = "*/seed_0/fold_*/run/last.pt"  # not those that are just being written
    with subprocess.Popen(command, cwd=BUNDLE, preexec_fn=heed_ctrl_c, stdout=subprocess.DEVNULL) as running:
        for _ in range(600):
            if len(list(out.glob(states))) == 2 or running.poll() is not None:
                break
            time.sleep(0.2)
        running.send_signal(how)
        running.wait(timeout=60)
    time.sleep(1)
    left = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert len(list(out.glob(states))) == 2
    assert not any("ESM" in path.parts for path in left)  # the two runs that waited were not begun
    time.sleep(3)  # several epochs
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == left


def test_steps_replace_those_of_the_budget(
    make_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = []
    monkeypatch.setattr(experiments, "train_once", lambda files, run, **given: settings.append((files, given)))
    monkeypatch.setattr(experiments, "run_workflow", lambda *arguments, **given: None)
    monkeypatch.setattr(experiments, "write_tables", lambda folder, *arguments: folder)
    data = str(make_dataset(cases=8, folds=2))
    run_experiment(read_experiment("table3", ["ResUNet_C_1"]), data, str(tmp_path / "out"), folds=[0], steps=20)
    ((files, given),) = settings
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / file) for file in files])
    parser.update({**given, "bundle_root": ".", "device": "cpu", "output_dir": str(tmp_path / "run")})
    loader, epochs = (parser.get_parsed_content(id_) for id_ in ("train#dataloader", "max_epochs"))
    assert 20 <= epochs * len(loader) < 20 + 4 * len(loader)
    for name, steps in (("fv", 20), ("table3", 0)):
        with pytest.raises(UserError, match=f"--steps {steps} with"):
            run_experiment(read_experiment(name), data, str(tmp_path / "other"), steps=steps)
    assert not (tmp_path / "other").exists()


def test_later_overlays_of_a_budget_win(
    make_dataset: Callable[..., Path], budget: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layered = []
    monkeypatch.setattr(experiments, "train_once", lambda files, run, **given: layered.append(files))
    monkeypatch.setattr(experiments, "run_workflow", lambda *arguments, **given: None)
    monkeypatch.setattr(experiments, "write_tables", lambda folder, *arguments: folder)
    start = partial(run_experiment, read_experiment("paper", ["nnU-Net's U-Net"]), str(make_dataset(folds=2)))
    start(str(tmp_path / "out"), [budget, "configs/presets/width32.yaml"], folds=[0], steps=20)
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / file) for file in layered[0]])
    found = {key: parser[key] for key in ("spatial_size", "learning_rate", "network_def#base_width")}
    assert found == {"spatial_size": 32, "learning_rate": 1.4e-3, "network_def#base_width": 32}
    record = json.loads((tmp_path / "out" / "experiment.json").read_text())
    assert record["budget"] == "budget.yaml + width32.yaml, steps 20"
    with pytest.raises(UserError, match=r"no\.yaml: no such file"):
        start(str(tmp_path / "other"), [budget, "no.yaml"])
    with pytest.raises(UserError, match=r"--steps 20 with \S+width32\.yaml; expected"):
        start(str(tmp_path / "other"), ["configs/presets/width32.yaml"], steps=20)


def test_a_folder_with_something_else_is_left_alone(
    make_dataset: Callable[..., Path], budget: str, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        run_experiment(read_experiment("table3"), str(make_dataset()), str(tmp_path / "out"), [budget])
    with pytest.raises(UserError, match=r"thesis\.txt: is a file"):
        run_experiment(read_experiment("table3"), str(tmp_path / "dataset"), str(tmp_path / "out/thesis.txt"), [budget])
    with pytest.raises(UserError, match=r"folds \[7\]"):
        run_experiment(read_experiment("table3"), str(tmp_path / "dataset"), str(tmp_path / "new"), [budget], folds=[7])


def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    make_dataset: Callable[..., Path], budget: str, tmp_path: Path
) -> None:
    start = partial(run_experiment, read_experiment("table3"), str(make_dataset()), str(tmp_path / "new"))
    with pytest.raises(UserError, match="device is 'nonsense'"):
        start([budget], device="nonsense")
    broken = {
        "text.md": b"# words",
        "list.yaml": b"- 1",
        "bad.yaml": b"a: [1",
        "empty.yaml": b"",
        "no.yaml": b"\xff",
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: no settings in YAML or JSON"):
            start([str(tmp_path / name)], steps=5)
    assert not (tmp_path / "new").exists()


def test_what_was_refused_before_a_training_claims_no_folder_and_results_do(
    make_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(files: list[str], run: Path, **given: Any) -> Path:
        if "typo" in Path(files[-1]).read_text():
            raise UserError("--typo: no config has a use for such an id")
        run.mkdir()
        (run / "last.pt").touch()
        return run / "model.pt"

    monkeypatch.setattr(experiments, "train_once", train)
    monkeypatch.setattr(experiments, "run_workflow", lambda *arguments, **given: None)
    monkeypatch.setattr(experiments, "write_tables", lambda folder, *arguments: folder)
    for name, content in (("a", "typo: 1"), ("b", "max_epochs: 1"), ("c", "max_epochs: 2")):
        (tmp_path / f"{name}.yaml").write_text(content)
    chosen, out = read_experiment("table3", ["ResUNet_C_1"]), tmp_path / "out"
    start = partial(run_experiment, chosen, str(make_dataset()), str(out), folds=[0], device="cpu")
    with pytest.raises(UserError, match="--typo"):
        start([str(tmp_path / "a.yaml")])
    start([str(tmp_path / "b.yaml")])
    before = {path: path.read_bytes() for path in out.rglob("*.json")}
    assert len(before) == 2
    with pytest.raises(UserError, match="began with another budget"):
        start([str(tmp_path / "c.yaml")])
    (tmp_path / "b.yaml").write_text("max_epochs: 3")
    with pytest.raises(UserError, match="was begun with another configuration"):
        start([str(tmp_path / "b.yaml")])
    assert {path: path.read_bytes() for path in out.rglob("*.json")} == before


def test_a_fold_named_twice_is_trained_once(
    make_dataset: Callable[..., Path], budget: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    monkeypatch.setattr(experiments, "train_once", lambda files, run, **given: trained.append(given["fold"]))
    monkeypatch.setattr(experiments, "run_workflow", lambda *arguments, **given: None)
    monkeypatch.setattr(experiments, "write_tables", lambda folder, *arguments: folder)
    chosen = read_experiment("table3", ["ResUNet_C_1"])
    run_experiment(chosen, str(make_dataset(cases=4, folds=2)), str(tmp_path / "out"), [budget], folds=[1, 0, 1])
    assert trained == [0, 1]


def test_processes_that_start_together_share_a_new_folder(tmp_path: Path) -> None:
    record = {"experiment": "table3"}
    with ThreadPoolExecutor(8) as pool:
        for attempt in range(20):
            folder = tmp_path / str(attempt)
            list(pool.map(lambda _, folder=folder: experiments._claim(folder, record), range(8)))
            assert [path.name for path in folder.iterdir()] == ["experiment.json"]


def test_protocols_evaluate_on_test_cases(make_dataset: Callable[..., Path], budget: str, tmp_path: Path) -> None:
    data = make_dataset(cases=4, folds=2)
    listed = json.loads((data / "datalist.json").read_text())
    moved = [case for case in listed["training"] if case["fold"] == 1]
    listed["training"] = [case for case in listed["training"] if case["fold"] == 0]
    listed["training"][0]["fold"] = None
    listed["test"] = [{**case, "fold": None} for case in moved]

    def run(protocol: Any) -> str:
        (data / "datalist.json").write_text(json.dumps(listed))
        chosen = read_experiment("table6", ["U-Net"])
        out = str(tmp_path / protocol)
        table = run_experiment(chosen, str(data), out, [budget], seeds=2, steps=4, device="cpu", protocol=protocol)
        return " ".join(table.read_text().split())

    text = run("test")
    cases = pd.read_csv(tmp_path / "test" / "cases.csv")
    assert list(cases["case"]) == 2 * [case["name"] for case in moved]
    assert list(cases["seed"]) == [0, 0, 1, 1]
    assert "mean over the cases of the test cases (protocol test)" in text
    assert "; 2 cases of small, split by patient with seed 0" in text
    assert "The last epoch counts: no case chose anything." in text
    assert "80.39 ± 9.87" in text  # of table 6, not of table 2
    summary = json.loads((tmp_path / "test/U_Net/seed_0/fold_0/tables/summary.json").read_text())
    rows = pd.read_csv(tmp_path / "test" / "runs.csv")
    assert rows["all_slice_dice"][0] == pytest.approx(summary["figures"]["slice"]["dice"]["mean"])
    assert "Dice of all slices" in text
    with pytest.raises(UserError, match="began with another protocol"):
        run_experiment(read_experiment("table6"), str(data), str(tmp_path / "test"), [budget], steps=4)
    with pytest.raises(UserError, match="no test cases of another data set; expected: `prepare --test-data`"):
        run("cross")
    listed["test_name"] = "elsewhere"
    assert "; 2 cases of elsewhere, trained on small, split" in run("cross")
    listed["test"] = []
    (data / "datalist.json").write_text(json.dumps(listed))
    with pytest.raises(UserError, match="--protocol test: no test cases"):
        run_experiment(read_experiment("table6"), str(data), str(tmp_path / "new"), [budget], protocol="test")
    assert not (tmp_path / "new").exists()


def test_a_folder_of_an_earlier_version_was_within(tmp_path: Path) -> None:
    experiments._claim(tmp_path, {"experiment": "table3"})
    experiments._claim(tmp_path, {"experiment": "table3", "protocol": "within"})
    (tmp_path / "table.md").touch()
    with pytest.raises(UserError, match="began with another protocol"):
        experiments._claim(tmp_path, {"experiment": "table3", "protocol": "cross"})


def test_classes_have_a_table_each_with_what_was_published(
    make_class_dataset: Callable[..., Path], weights: Path, budget: str, tmp_path: Path
) -> None:
    """One network of two folds; the prior is that of weights whose name holds the fold."""
    for fold in (0, 1):
        for suffix in (".pt", ".json"):
            shutil.copy(weights.with_suffix(suffix), tmp_path / f"infection_{fold}{suffix}")
    experiment, data, out = read_experiment("classes", ["FCN8s"]), make_class_dataset(), tmp_path / "out"
    with pytest.raises(UserError, match="expected: --teacher WEIGHTS"):
        run_experiment(experiment, str(data), str(out), [budget], folds=[0], device="cpu", steps=1)
    teacher = str(tmp_path / "infection_{fold}.pt")
    table = run_experiment(experiment, str(data), str(out), [budget], device="cpu", steps=1, teacher=teacher)
    text = table.read_text()
    assert text.count("| FCN8s |") == 2
    assert "# Ground glass and consolidation: ground glass" in text
    for name, dice in (("ground_glass", 64.6), ("consolidation", 23.8)):
        row = pd.read_csv(out / name / "table.csv").set_index("variant").loc["FCN8s"]
        cases = pd.read_csv(out / name / "cases.csv")
        assert row["published_dice"] == dice
        assert len(cases) == 4
        runs = [pd.read_csv(out / f"FCN8s/seed_0/fold_{fold}/tables/classes.csv") for fold in (0, 1)]
        means = [run[run["class"] == name]["dice"].mean() for run in runs]
        assert row["dice"] == pytest.approx(100 * sum(means) / 2)
    prior = json.loads((out / "FCN8s/seed_0/fold_1/run/model.json").read_text())["preprocessing"]["prior"]
    assert prior == sha256(weights)
