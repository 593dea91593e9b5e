"""The notebook of the quick start, executed cell by cell as a reader would."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from scripts.io.output_names import read_report

PACKAGE = "lung_infection_ct"


@pytest.fixture
def installed(bundle_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package under the name that it has when installed."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / PACKAGE).symlink_to(bundle_root / "scripts")
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_every_cell_runs_and_the_picture_is_small(
    installed: None, bundle_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle_root / "docs/quickstart.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert path.stat().st_size < 100_000
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), f"cell {cell['id']}", "exec"), names)
    result, phantom = names["result"], names["phantom"]
    assert result.mask.shape == phantom.image.shape  # type: ignore[attr-defined]
    assert 0.3 < float(str(names["overlap"])) <= 1
    report = read_report(tmp_path / "quickstart_results")
    assert report is not None
    assert report["measures"]["infection"]["infection_voxels"] == np.count_nonzero(result.mask)  # type: ignore[attr-defined]
