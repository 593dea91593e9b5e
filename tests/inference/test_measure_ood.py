"""How docs/measure_ood.py measures: by hand."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from scripts.errors import UserError
from scripts.transforms.slice_input import SliceInput
from tests.doc_scripts import load_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("measure_ood")


def test_auroc_by_hand(script: ModuleType) -> None:
    inside, outside = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 3.5, 9.0])
    # 2 beats 1 and ties with 2: 1.5 of 4; 3.5 beats three; 9 beats four
    assert script.auroc(inside, outside) == pytest.approx((1.5 + 3 + 4) / 12)
    assert script.auroc(outside, inside) == pytest.approx(1 - 8.5 / 12)
    low, high = script.interval(inside, outside)
    assert 0 <= low < 8.5 / 12 < high <= 1


def test_groups_stand_against_labelled_cases_of_their_kind(script: ModuleType) -> None:
    scores = [("labelled volumes", 1), ("labelled volumes", 2), ("labelled pictures", 5), ("phantoms", 3)]
    rows = pd.DataFrame([{"group": group, "picture": "pictures" in group, "present": score} for group, score in scores])
    rows = rows.assign(**{name: rows["present"] for name in script.SCORES})
    found = script.separate(rows).iloc[0]
    assert (found["n"], found["in distribution"], found["AUROC"], found["flagged"]) == (1, 2, 1.0, 1)
    without = rows[rows["group"] != "labelled volumes"].replace("phantoms", "radiographs")
    assert len(script.separate(pd.concat([rows, without]))) == 2 * len(script.SCORES)
    assert script.separate(without).empty  # no volume to compare them with


def test_recalibration_of_the_other_folds_mends_what_is_too_sure(script: ModuleType) -> None:
    """Logits twice as large as the fractions of lesion say."""
    centres = (script.BINS[:-1] + script.BINS[1:]) / 2
    number = np.full(len(centres), 1e4)
    counts = {fold: np.stack([number, number / (1 + np.exp(-centres / 2))]) for fold in (0, 1)}
    found = script.calibrations(counts).groupby("map")[["Brier", "ECE", "T"]].mean()
    assert found["T"]["temperature"] == pytest.approx(2, rel=1e-2)
    assert found["ECE"]["as it is"] > 0.05
    assert found["ECE"][["temperature", "isotonic"]].max() < 0.005
    assert found["Brier"]["isotonic"] < found["Brier"]["as it is"]


def test_slices_of_another_choice_are_not_gone_on_with(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def segmenter(weights: str, device: str, backend: str) -> SimpleNamespace:
        metadata = {"sha256": weights, "data": {"fold": 0}}
        return SimpleNamespace(metadata=metadata, slice_input=SliceInput(16, (-1000.0, 0.0)))

    def prepare(cases: object, others: object, segmenter: object, folder: Path, count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        made.append(count)

    made: list[int] = []
    listed = [{"name": "a", "image": "a.nii.gz", "label": "b.nii.gz", "fold": 0}]
    fakes = {"Segmenter": segmenter, "prepare": prepare, "select_cases": lambda *_: listed}
    fakes |= dict.fromkeys(("check_data", "write", "judge"), lambda *_: ())
    for name, fake in fakes.items():
        monkeypatch.setattr(script, name, fake)
    out = str(tmp_path / "out")
    for _ in range(2):
        script.main("DATA", out, "one.pt", slices=3)
    for changed in ({"slices": 10}, {"size": 32}, {"others": "scans"}):
        with pytest.raises(UserError, match=f"inputs: was measured with another {next(iter(changed))}; .*another OUT"):
            script.main("DATA", out, "one.pt", **{"slices": 3, **changed})
    with pytest.raises(UserError, match="another weights"):
        script.main("DATA", out, "two.pt", slices=3)
    listed.append({**listed[0], "name": "c"})
    with pytest.raises(UserError, match="another cases"):
        script.main("DATA", out, "one.pt", slices=3)
    assert made == [3, 3]
