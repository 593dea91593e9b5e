"""Experiments: the table's figures against a hand calculation, and one small set end to end with a stop in between."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from scripts.errors import UserError
from scripts.training import experiments, workflows
from scripts.training.experiments import EXPERIMENTS, MEASURES, PARTS, compare, read_experiment, run_experiment
from scripts.version import BUNDLE


def runs(**dice: list[float]) -> pd.DataFrame:
    rows = []
    for variant, values in dice.items():
        for fold, value in enumerate(values):
            row = {
                "variant": variant,
                "seed": 0,
                "fold": fold,
                **dict.fromkeys(MEASURES, 0.5),
                **dict.fromkeys(PARTS, 0.25),
            }
            rows.append({**row, "dice": value})
    return pd.DataFrame(rows)


def test_mean_spread_and_paired_difference() -> None:
    table = compare(
        runs(base=[0.60, 0.70, 0.80], better=[0.64, 0.75, 0.83], same=[0.65, 0.65, 0.81]), ["base", "better", "same"]
    )
    assert table.loc["base", "dice"] == pytest.approx(70)
    assert table.loc["base", "dice_sd"] == pytest.approx(10)
    assert table.loc["better", "difference"] == pytest.approx(4)  # 4, 5, 3
    assert table.loc["better", "difference_sd"] == pytest.approx(1)
    assert bool(table.loc["better", "detectable"])  # 4 > 2 * 1 / sqrt(3)
    assert table.loc["same", "difference"] == pytest.approx(1 / 3)  # 5, -5, 1
    assert not table.loc["same", "detectable"]
    assert table.loc["base", "slice_dice"] == 25


def test_nothing_is_detectable_from_less_than_three_runs() -> None:
    table = compare(runs(base=[0.6, 0.6], better=[0.9, 0.9]), ["base", "better"])
    assert table.loc["better", "difference"] == pytest.approx(30)
    assert not table["detectable"].any()
    assert math.isnan(compare(runs(base=[0.6]), ["base"]).loc["base", "dice_sd"])


@pytest.mark.parametrize("name", sorted(path.stem for path in EXPERIMENTS.glob("*.yaml")))
def test_every_experiment_names_files_that_there_are_and_figures_in_percent(name: str) -> None:
    experiment = read_experiment(name)
    assert len(experiment.variants) > 1
    assert bool(experiment.source) == bool(experiment.protocol) == any(one.published for one in experiment.variants)
    for variant in experiment.variants:
        assert "," not in variant.name  # --variants parts them by commas
        for file in variant.files:
            assert (BUNDLE / file).is_file(), file
        assert all(0 <= value <= 100 for value in variant.published.values())


def test_variants_have_folders_of_their_own() -> None:
    names = [one.name for name in ("infnet", "table2", "table4") for one in read_experiment(name).variants]
    assert {"U-Net", "U-Net++", "ESM", "ESM*"} & set(names)
    assert experiments._folder_name("U-Net") != experiments._folder_name("U-Net++")
    assert experiments._folder_name("ESM + AFM") != experiments._folder_name("ESM* + AFM")


@pytest.mark.parametrize("name", sorted(path.stem for path in EXPERIMENTS.glob("*.yaml")))
def test_every_variant_fits_its_loss_at_the_size_of_its_budget(name: str) -> None:
    experiment = read_experiment(name)
    for variant in experiment.variants:
        parser = ConfigParser()
        files = [experiments.TRAIN, *experiment.files, *variant.files, experiment.budget]
        parser.read_config([str(BUNDLE / file) for file in files])
        parser.update({**variant.settings, "network_def#base_width": 4, "bundle_root": ".", "device": "cpu"})
        network, loss = parser.get_parsed_content("network_def").train(), parser.get_parsed_content("loss")
        size = parser.get_parsed_content("spatial_size")
        volume = experiment.budget.endswith("cpu3d.yaml")
        shape = (2, 1, *parser.get_parsed_content("patch_size")) if volume else (2, 1, size, size)
        label = torch.zeros(2, 1 if volume else 2, *shape[2:])
        label[:, :, 10:40, 20:60] = 1
        value = loss(network(torch.randn(shape)), label)
        assert math.isfinite(float(value)), variant.name
        value.backward()


def test_published_figures_are_those_of_the_paper() -> None:
    table3, table4 = read_experiment("table3"), read_experiment("table4")
    best = {variant.name: variant for variant in table3.variants}["ResUNet_C_2"]
    assert (best.published["dice"], best.published["dice_sd"]) == (89.93, 0.09)
    assert best.settings == {"network_def#edge_stages": [1, 2], "network_def#mask_stages": [3, 4, 5]}
    assert table4.variants[0].name == "baseline"
    assert table4.variants[0].published == {"dice": 85.96, "dice_sd": 0.03}


def test_unknown_names_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"experiment is 'table9'; accepted: .*table3, table4"):
        read_experiment("table9")
    with pytest.raises(UserError, match="variants ResUNet; accepted, separated by commas: ResUNet_C_1; "):
        read_experiment("table3", ["ResUNet"])


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
        run_experiment(chosen, str(data), str(out), budget, steps=7, device="cpu")
    text = run_experiment(chosen, str(data), str(out), budget, steps=7, device="cpu").read_text()
    assert len(calls) == len(set(calls)) + 1 == 9  # the one that was stopped came twice
    rows = pd.read_csv(out / "runs.csv")
    assert list(rows["variant"]) == ["baseline"] * 2 + ["ESM + ASSM + AFM"] * 2
    assert list(rows["cases"]) == [2] * 4
    metrics = pd.read_csv(out / "baseline" / "seed_0" / "fold_1" / "tables" / "metrics.csv")
    assert rows["dice"][1] == pytest.approx(metrics["dice"].mean())
    assert "| baseline | " in text
    assert "85.96 ± 0.03" in text
    assert "none detectable" in text
    assert "2 runs (1 seed x 2 folds)" in text
    assert "4 cases of small, split by patient" in text
    assert not list(out.rglob("last.pt"))
    assert "Budget budget.yaml, steps 7, version" in text
    with pytest.raises(UserError, match="began with another budget"):
        run_experiment(chosen, str(data), str(out), budget, steps=8)
    other = read_experiment("table3", ["ResUNet_C_1"])
    with pytest.raises(UserError, match="began with another experiment"):
        run_experiment(other, str(data), str(out), budget)


def test_steps_replace_those_of_the_budget(
    make_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = []
    monkeypatch.setattr(experiments, "train_once", lambda files, run, **given: settings.append((files, given)))
    monkeypatch.setattr(experiments, "run_workflow", lambda *arguments, **given: None)
    monkeypatch.setattr(experiments, "_figures", lambda place: dict.fromkeys(("cases", *PARTS, *MEASURES), 1))
    data = str(make_dataset(cases=8, folds=2))
    run_experiment(read_experiment("table3", ["ResUNet_C_1"]), data, str(tmp_path / "out"), folds=[0], steps=20)
    ((files, given),) = settings
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / file) for file in files])
    parser.update({**given, "bundle_root": ".", "device": "cpu", "output_dir": str(tmp_path / "run")})
    loader, epochs = (parser.get_parsed_content(id_) for id_ in ("train#dataloader", "max_epochs"))
    assert 20 <= epochs * len(loader) < 20 + 4 * len(loader)
    for name, steps in (("fv", 20), ("table3", 0)):
        with pytest.raises(UserError, match=rf"--steps {steps} with .*; accepted: 1 or more"):
            run_experiment(read_experiment(name), data, str(tmp_path / "other"), steps=steps)
    assert not (tmp_path / "other").exists()


def test_a_folder_with_something_else_is_left_alone(
    make_dataset: Callable[..., Path], budget: str, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        run_experiment(read_experiment("table3"), str(make_dataset()), str(tmp_path / "out"), budget)
    with pytest.raises(UserError, match=r"folds \[7\]"):
        run_experiment(read_experiment("table3"), str(tmp_path / "dataset"), str(tmp_path / "new"), budget, folds=[7])
