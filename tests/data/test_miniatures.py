"""docs/make_miniatures.py writes trees that `prepare` takes for what they stand for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scripts.data.layouts.build import build_datalist
from scripts.version import BUNDLE
from tests.doc_scripts import load_script


def test_miniatures_are_the_trees_of_public_data_sets(tmp_path: Path) -> None:
    script = load_script("make_miniatures")
    trees = script.Trees(tmp_path / "mini", 48, 8)
    script.others(trees)
    script.pictures(trees)
    found = {}
    for name in ("mosmed", "uestc", "challenge", "resunet_png", "cares_png"):
        datalist, facts = build_datalist([tmp_path / "mini" / name], folds=2)
        found[datalist["layout"]] = len(datalist["training"])
        assert any(marked.any() for marked in facts.infected.values())
    volumes = {"mosmeddata": 6, "uestc_covid_19": 6, "covid_19_20_v2": 6}
    assert {name: count for name, count in found.items() if name in volumes} == volumes
    assert found["resunet_png"] == found["cares_png"] > 4


def test_the_documented_command_starts_and_refuses_a_filled_folder(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    words = [sys.executable, "docs/make_miniatures.py", str(tmp_path)]
    ended = subprocess.run(words, cwd=BUNDLE, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"error: {tmp_path}: is not empty; expected: a new folder\n"
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
