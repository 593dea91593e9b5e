from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from scripts.research.class_tables import ClassTables
from scripts.training.tables import TableMetric


def maps(codes: torch.Tensor) -> torch.Tensor:
    return torch.stack([codes == number for number in range(3)]).float()


def test_each_class_is_judged_alone(tmp_path: Path) -> None:
    truth, found = torch.zeros(4, 4, 1), torch.zeros(4, 4, 1)
    truth[0], truth[1, :2] = 1, 2  # 4 and 2 voxels
    found[0, :3], found[0, 3], found[1, :2] = 1, 2, 2  # one ground glass taken for consolidation
    empty = torch.zeros(4, 4, 1)
    meta = {"original_affine": torch.eye(4).numpy()}
    outputs = [
        {
            "image": MetaTensor(torch.zeros(2, 4, 4, 1), meta=meta),
            "pred": MetaTensor(maps(a)),
            "label": MetaTensor(maps(b)),
        }
        for a, b in ((found, truth), (empty, empty))
    ]
    cases = [{"name": name, "patient": name, "image": f"{name}.png"} for name in ("a", "b")]

    def step(engine: Engine, number: int) -> list[dict[str, MetaTensor]]:
        engine.state.batch = [{"name": cases[number]["name"]}]
        return [outputs[number]]

    engine = Engine(step)
    tables = ClassTables(str(tmp_path), cases, threshold=0.5, context={"split": "test"})
    TableMetric(tables).attach(engine, "ground_glass_case_dice")
    engine.run([0, 1])
    rows = pd.read_csv(tmp_path / "classes.csv").set_index(["case", "class"])
    glass, solid = rows.loc[("a", "ground_glass")], rows.loc[("a", "consolidation")]
    assert glass["dice"] == pytest.approx(2 * 3 / (3 + 4))
    assert (glass["sensitivity"], glass["precision"], glass["specificity"]) == (0.75, 1, 1)
    assert glass["mae"] == solid["mae"] == pytest.approx(1 / 16)
    assert solid["dice"] == pytest.approx(2 * 2 / (3 + 2))
    assert solid["precision"] == pytest.approx(2 / 3)
    assert solid["specificity"] == pytest.approx(13 / 14)
    assert rows.loc[("b", "consolidation"), "dice"] == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["split"] == "test"
    assert summary["figures"]["ground_glass"]["case"]["dice"]["mean"] == pytest.approx((6 / 7 + 1) / 2)
    assert summary["figures"]["ground_glass"]["case"]["sensitivity"]["n"] == 1
    assert summary["figures"]["consolidation"]["pooled"]["dice"] == pytest.approx(0.8)
    found = engine.state.metrics
    assert found["ground_glass_case_dice"] == summary["figures"]["ground_glass"]["case"]["dice"]["mean"]
    assert found["consolidation_pooled_dice"] == summary["figures"]["consolidation"]["pooled"]["dice"]
