"""What docs/measure_views.py and its like find when they are called again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from scripts.errors import UserError
from scripts.research.measured_rows import keep_rows, kept_rows
from tests.doc_scripts import load_script


def test_rows_go_on_with_the_settings_that_they_began_with(tmp_path: Path) -> None:
    settings = {"weights": "a", "margins": [0.0, 1.0]}
    assert kept_rows(tmp_path, **settings) == []
    keep_rows(tmp_path, [{"case": "one", "applied": 3}])
    assert kept_rows(tmp_path, **settings) == [{"case": "one", "applied": 3}]
    with pytest.raises(UserError, match="measured with another weights, another margins; expected: another OUT"):
        kept_rows(tmp_path, weights="b", margins=[2.0])
    (tmp_path / "settings.json").unlink()
    with pytest.raises(UserError, match="another weights"):
        kept_rows(tmp_path, **settings)


def test_views_of_other_weights_or_margins_are_no_rows_of_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, out = load_script("measure_views"), tmp_path / "out"

    def measure(segmenter: Any, case: Any, margins: list[float]) -> list[dict[str, Any]]:
        figures = {"slices": 10, "applied": 40, "marked_voxels": 5, "differing_voxels": 0}
        return [{"case": case.folder, "margin": margin, **figures} for margin in (None, *margins)]

    monkeypatch.setattr(script, "Segmenter", lambda weights, keep_outside: None)
    monkeypatch.setattr(script, "expand_inputs", lambda scans, out: [SimpleNamespace(folder=one) for one in scans])
    monkeypatch.setattr(script, "measure", measure)
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_text(name)
    first, other = str(tmp_path / "a.pt"), str(tmp_path / "b.pt")
    script.main(str(out), "one", weights=first, margins=(0, 1))
    script.main(str(out), "one", "two", weights=first, margins=(0, 1))
    for changed in ({"weights": other, "margins": (0, 1)}, {"weights": first, "margins": 2}):
        with pytest.raises(UserError, match="another OUT"):
            script.main(str(out), "three", **changed)
    monkeypatch.setattr(script, "bundle_version", lambda: "0.0.0")
    with pytest.raises(UserError, match="another version; expected: another OUT"):
        script.main(str(out), "three", weights=first, margins=(0, 1))
    assert list(pd.read_csv(out / "rows.csv")["case"]) == 3 * ["one"] + 3 * ["two"]
