"""The scheme as a user runs it: by the runner, with settings from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from monai.bundle import ConfigParser

from scripts.research.semi_supervised import SemiSupervised
from tests.bundle_runner import run_bundle

SEMI = "configs/semi_supervised.yaml"


def test_by_the_runner(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_dataset(cases=4)
    path = folder / "datalist.json"
    datalist = json.loads(path.read_text())
    unlabelled = [{key: case[key] for key in ("image", "patient", "name")} for case in datalist["training"][2:]]
    path.write_text(json.dumps({**datalist, "training": datalist["training"][:2], "unlabeled": unlabelled}))
    settings = {"network_def#base_width": 4, "spatial_size": 32, "batch_size": 4, "max_epochs": 1}
    out = tmp_path / "out"
    options = {"dataset_dir": folder, "output_dir": out, "device": "cpu", "settings": settings}
    run_bundle("training", SEMI, **options)
    metadata = json.loads((out / "model.json").read_text())
    assert metadata["data"]["pseudo_labelled_cases"] == 2
    assert metadata["network"]["arguments"]["base_width"] == 4
    again = run_bundle("training", SEMI, ok=False, **options)
    assert again.returncode
    assert "holds results already" in again.stderr.splitlines()[-1]


def test_semi_infnets_overlay_is_its_scheme(bundle_root: Path) -> None:
    parser = ConfigParser()
    parser.read_config([str(bundle_root / SEMI), str(bundle_root / "configs/semi_infnet.yaml")])
    parser.update({"bundle_root": ".", "device": "cpu"})
    scheme = parser.get_parsed_content("scheme")
    assert isinstance(scheme, SemiSupervised)
    assert (scheme.rounds, scheme.group_size, scheme.soft, scheme.start, scheme.mixing) == (
        None,
        5,
        True,
        "previous",
        "pool",
    )
    assert scheme.round_settings == {"max_epochs": 10, "learning_rate": 3e-4, "batch_size": 16}
    assert [stage["name"] for stage in scheme.final] == ["pretrained", "finetuned"]
