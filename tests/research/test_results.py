"""The tables that the documents quote: they follow from the rows beside them,
of patients that were not trained on."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from scripts.research.experiment_tables import compare
from scripts.research.experiment_text import table_lines

RESULTS = Path(__file__).parents[2] / "docs/results"
FOLDERS = sorted(path.parent for path in RESULTS.glob("*/table.csv"))

pytestmark = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def test_a_table_follows_from_its_rows(folder: Path) -> None:
    table = pd.read_csv(folder / "table.csv", index_col="variant")
    runs, cases = pd.read_csv(folder / "runs.csv"), pd.read_csv(folder / "cases.csv")
    again = compare(runs, cases, list(table.index))
    pd.testing.assert_frame_equal(again, table[again.columns], check_dtype=False, rtol=1e-9)
    by_run = cases.groupby(["variant", "seed", "fold"])["dice"].agg(["mean", "size"])
    stated = runs.set_index(["variant", "seed", "fold"])[["dice", "cases"]].sort_index()
    pd.testing.assert_series_equal(by_run["mean"], stated["dice"], check_names=False, rtol=1e-9)
    assert by_run["size"].tolist() == stated["cases"].tolist()


def test_the_table_for_people_is_that_of_the_figures(folder: Path) -> None:
    text = (folder / "table.md").read_text(encoding="utf-8").splitlines()
    printed = [line for line in text if line.startswith("|")]
    table = pd.read_csv(folder / "table.csv", index_col="variant")
    assert printed == table_lines(table, published="published" in printed[0])


def test_cases_were_judged_in_their_own_fold(folder: Path, sealed: set[str]) -> None:
    named = re.search(r"datalist\.json (\w{12})", (folder / "table.md").read_text(encoding="utf-8"))
    assert named
    content = (RESULTS / "datalists" / f"{named[1]}.json").read_bytes()
    assert hashlib.sha256(content).hexdigest().startswith(named[1])
    listed = {case["name"]: case for case in json.loads(content)["training"]}
    assert not sealed & {str(case["patient"]) for case in listed.values()}
    for row in pd.read_csv(folder / "cases.csv").itertuples():
        assert listed[row.case]["fold"] == row.fold
    for key, path in ((key, case[key]) for case in listed.values() for key in ("image", "label") if key in case):
        assert re.match(r"\w", path), f"{key} {path}: not relative"
