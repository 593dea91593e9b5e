"""docs/make_miniatures.py writes trees that `prepare` takes for what they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.data.layouts.build import build_datalist
from scripts.errors import UserError
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
    with pytest.raises(UserError, match="mini: is not empty"):
        script.main(str(tmp_path / "mini"))
