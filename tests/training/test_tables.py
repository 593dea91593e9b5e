from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler, from_engine

from scripts.metrics import MEASURES, SegmentationMetric
from scripts.metrics.functional import OVERLAP_MEASURES
from scripts.training.tables import CaseTables, TableMetric

Output = dict[str, MetaTensor]


def case(name: str, prob: torch.Tensor, label: torch.Tensor, stored: str = "S") -> tuple[dict[str, str], Output]:
    affine = torch.diag(torch.tensor([-2.0, -2.0, 5.0 if stored == "S" else -5.0, 1.0]))
    meta = {"filename_or_obj": f"{name}.nii.gz", "original_affine": affine.numpy()}
    canonical = torch.diag(torch.tensor([-2.0, -2.0, 5.0, 1.0]))
    output = {
        "image": MetaTensor(torch.zeros_like(prob), affine=canonical, meta=meta),
        "pred": MetaTensor(prob),
        "label": MetaTensor(label, affine=canonical, meta=dict(meta)),
    }
    return {"image": f"{name}.nii.gz", "name": name, "patient": name}, output


def attached(tables: CaseTables) -> Engine:
    def step(engine: Engine, batch: tuple[str, Output]) -> list[Output]:
        engine.state.batch = [{"name": batch[0]}]
        return [batch[1]]

    engine = Engine(step)
    tables.attach(engine)
    return engine


def run(tables: CaseTables, outputs: list[Output]) -> None:
    attached(tables).run(list(zip(tables.cases, outputs, strict=True)))


@pytest.fixture
def two() -> tuple[list[dict], list[Output]]:
    prob, label = torch.zeros(1, 4, 4, 3), torch.zeros(1, 4, 4, 3)
    label[0, :2, :2, 0] = 1  # 4 voxels
    prob[0, :2, :3, 0] = 0.9  # 6 voxels, 4 right
    first = case("a", prob, label)
    false_positive = torch.zeros(1, 4, 4, 2)
    false_positive[0, 0, 0, 1] = 0.8
    second = case("b", false_positive, torch.zeros(1, 4, 4, 2))
    return [first[0], second[0]], [first[1], second[1]]


def make(folder: Path, cases: list[dict], **options: object) -> CaseTables:
    return CaseTables(str(folder), cases, threshold=0.5, context={"split": "test"}, **options)


def test_rows_and_figures_by_hand(two, tmp_path: Path) -> None:
    cases, outputs = two
    run(make(tmp_path, cases, voxel_size_known="true"), outputs)
    rows = pd.read_csv(tmp_path / "metrics.csv").set_index("case")
    assert rows.loc["a", "dice"] == pytest.approx(8 / 10)
    assert rows.loc["a", "volume_ml"] == pytest.approx(4 * 20 / 1000)
    assert rows.loc["b", "dice"] == 0
    assert rows.loc["b", "false_positive_voxels"] == 1
    assert np.isnan(rows.loc["b", "sensitivity"])
    slices = pd.read_csv(tmp_path / "slices.csv")
    assert len(slices) == 5
    assert slices[slices["case"] == "a"]["dice"].tolist() == pytest.approx([0.8, 1, 1])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["split"] == "test"
    assert summary["figures"]["case"]["dice"]["mean"] == pytest.approx(0.4)
    assert summary["figures"]["case"]["sensitivity"]["n"] == 1


def test_a_tilted_gantry_takes_nothing_of_a_volume(two, tmp_path: Path) -> None:
    (first, _), (output, _) = two
    output["label"].affine[1, 2] = 5.0  # slices are 5 mm apart, each 5 mm further to the front
    run(make(tmp_path, [first], voxel_size_known=True), [output])
    (row,) = pd.read_csv(tmp_path / "metrics.csv").to_dict("records")
    assert (row["volume_ml"], row["predicted_volume_ml"]) == pytest.approx((4 * 20 / 1000, 6 * 20 / 1000))


def test_state_metrics_are_the_figures_of_the_summary(two, tmp_path: Path) -> None:
    """And those that metrics of their own find in the same outputs."""
    cases, outputs = two
    tables = make(tmp_path, cases)
    engine = attached(tables)
    TableMetric(tables).attach(engine, "case_dice")
    alone = {
        f"{aggregation}_{name}": SegmentationMetric(name, aggregation)
        for aggregation in ("case", "slice", "positive_slice", "pooled")
        for name in (MEASURES if aggregation != "pooled" else OVERLAP_MEASURES)
    }
    for name, metric in alone.items():
        take = from_engine(["pred", "label"])
        IgniteMetricHandler(metric_fn=metric, output_transform=take, save_details=False).attach(engine, f"_{name}")
    for _ in range(2):  # the second run begins anew
        engine.run(list(zip(tables.cases, outputs, strict=True)))
        found = engine.state.metrics
        summary = json.loads((tmp_path / "summary.json").read_text())["figures"]
        for name in alone:
            part, measure = next((p, name[len(p) + 1 :]) for p in ("positive_slice", *summary) if name.startswith(p))
            written = summary["pooled"][measure] if part == "pooled" else summary[part][measure]["mean"]
            assert found[name] == pytest.approx(math.nan if written is None else written, abs=0, nan_ok=True), name
            assert found[name] == pytest.approx(found[f"_{name}"], abs=1e-12, nan_ok=True), name
    assert found["case_sensitivity"] == 1  # of the one case with lesion


def test_the_log_names_every_measure(two, tmp_path: Path, caplog) -> None:
    with caplog.at_level("INFO"):
        run(make(tmp_path, two[0]), two[1])
    said = next(message for message in caplog.messages if message.startswith("Dice"))
    assert said.startswith("Dice: 0.400 (sd 0.566), IoU 0.333, sensitivity 1.000, precision 0.333, MAE 0.0")
    assert "E-measure 1.008" in said
    assert "S-measure 0.955" in said
    assert "means over 2 cases" in said


def test_without_a_real_voxel_size_nothing_is_in_ml(two, tmp_path: Path) -> None:
    cases, outputs = two
    run(make(tmp_path, cases), outputs)
    assert not [name for name in pd.read_csv(tmp_path / "metrics.csv") if name.endswith(("_ml", "_mm"))]


@pytest.mark.parametrize(("stored", "expected"), [("S", [0]), ("I", [2])])
def test_a_case_of_chosen_slices_is_judged_on_those(stored: str, expected: list[int], tmp_path: Path) -> None:
    label = torch.zeros(1, 4, 4, 3)
    label[0, :, :, 0] = 1
    item, output = case("a", label.clone(), label, stored)
    run(make(tmp_path, [{**item, "slices": [0]}]), [output])
    slices = pd.read_csv(tmp_path / "slices.csv")
    assert slices["slice"].tolist() == expected
    assert slices["actual"].tolist() == ([16] if stored == "S" else [0])


def test_two_cases_of_one_volume_are_judged_apart(tmp_path: Path) -> None:
    label = torch.zeros(1, 4, 4, 3)
    label[0, :, :, 0] = 1
    item, output = case("stack", label.clone(), label)
    parts = [{**item, "name": "stack_fold0", "slices": [0, 1]}, {**item, "name": "stack_fold1", "slices": [2]}]
    run(make(tmp_path, parts), [output, output])
    slices = pd.read_csv(tmp_path / "slices.csv")
    assert list(zip(slices["case"], slices["slice"], strict=True)) == [
        ("stack_fold0", 0),
        ("stack_fold0", 1),
        ("stack_fold1", 2),
    ]


@pytest.mark.parametrize(("chosen", "hd95"), [([0, 1, 2], 10.0), ([2], 0.0), ([0, 2], None)])
def test_surfaces_are_measured_in_slices_that_follow_each_other(
    chosen: list[int], hd95: float | None, tmp_path: Path
) -> None:
    """A lesion in slice 0 and what is found in slice 2 are two slices of 5 mm apart."""
    label, prob = torch.zeros(1, 4, 4, 3), torch.zeros(1, 4, 4, 3)
    label[0, 1:3, 1:3, 0 if len(chosen) > 1 else 2] = 1
    prob[0, 1:3, 1:3, 2] = 1
    item, output = case("a", prob, label)
    run(make(tmp_path, [{**item, "slices": chosen}], voxel_size_known=True), [output])
    row = pd.read_csv(tmp_path / "metrics.csv").iloc[0]
    assert row["hd95_mm"] == pytest.approx(math.nan if hd95 is None else hd95, nan_ok=True)
    assert row["surface_dice_1mm"] == pytest.approx({None: math.nan, 0.0: 1.0, 10.0: 0.0}[hd95], nan_ok=True)
    assert row["volume_ml"] == pytest.approx(0.08)
    figures = json.loads((tmp_path / "summary.json").read_text())["figures"]["case"]["hd95_mm"]
    assert (figures["n"], figures["n_undefined"]) == ((0, 1) if hd95 is None else (1, 0))


def test_a_second_run_starts_anew(two, tmp_path: Path) -> None:
    cases, outputs = two
    tables = make(tmp_path, cases)
    engine = attached(tables)
    for _ in range(2):
        engine.run(list(zip(tables.cases, outputs, strict=True)))
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == 2
