from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import pytest
import yaml

from scripts.errors import UserError
from scripts.inference.metadata import read_metadata
from scripts.monai_label import checkpoints, deployment

Make = Callable[..., Path]
NAME = "lung_infection_ct_segmentation"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """What stands for MONAI Label's bundle app."""
    folder = tmp_path / "monaibundle"
    (folder / "lib" / "__pycache__").mkdir(parents=True)
    (folder / "main.py").write_text("# MONAI Label's")
    (folder / "lib" / "__init__.py").write_text("")
    return folder


@pytest.fixture
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phantoms are made once in `test_phantoms_are_there_to_begin_with`;
    elsewhere the folder stays empty."""
    monkeypatch.setattr(deployment, "_write_phantoms", lambda folder: folder.mkdir())


def test_configs_are_those_of_the_metadata_network(tmp_path: Path, app: Path, make_checkpoint: Make, studies) -> None:
    weights = make_checkpoint(tmp_path / "model.pt", base_width=8, data={"name": "zenodo", "synthetic": False})
    name = deployment.assemble(tmp_path / "out", weights, app)
    assert name == NAME
    bundle = tmp_path / "out" / "app" / "model" / name
    train = yaml.safe_load((bundle / "configs" / "train.yaml").read_text())
    assert train["network_def"] == {
        "_target_": "scripts.networks.registry.create_network",
        "name": "resunet",
        "base_width": 8,
    }
    assert (train["spatial_size"], train["window"], train["intensity"]) == (64, [-1250, 250], "auto")
    assert train["train"]["dataset"]["data"] == []
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["description"].startswith("Weights trained on zenodo. ")
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == [64, 64, "*"]
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "infection"}
    assert (bundle / "models" / "model.pt").read_bytes() == weights.read_bytes()
    assert (bundle / "scripts" / "inference" / "metadata.py").is_file()
    assert not list(bundle.rglob("__pycache__"))
    assert (tmp_path / "out" / "app" / "monaibundle.py").read_text() == "# MONAI Label's"
    assert "class LungInfectionApp" in (tmp_path / "out" / "app" / "main.py").read_text()


def test_the_shipped_full_model_is_offered_where_it_is_there(
    tmp_path: Path, app: Path, make_checkpoint: Make, shipped: Path, studies
) -> None:
    weights = make_checkpoint(tmp_path / "model.pt")
    name = deployment.assemble(tmp_path / "out", weights, app)
    bundles = tmp_path / "out" / "app" / "model"
    full = bundles / f"{NAME}_full"
    assert {path.name for path in bundles.iterdir()} == {name, full.name}
    assert (full / "models" / "model.pt").read_bytes() == (shipped / "full.pt").read_bytes()
    assert read_metadata(full / "models" / "model.pt")["network"]["arguments"] == {"base_width": 8}
    described = json.loads((full / "configs" / "metadata.json").read_text())["description"]
    assert described.startswith("DEMONSTRATION ONLY")
    assert not (full / "scripts").exists()  # the code is that of the other
    assert len(checkpoints.names(tmp_path / "out")) == 1  # nothing to train from

    (shipped / "full.pt").unlink()
    deployment.assemble(tmp_path / "out", weights, app)
    assert [path.name for path in bundles.iterdir()] == [name]


def test_a_model_of_synthetic_scans_says_so(tmp_path: Path, app: Path, make_checkpoint: Make, studies) -> None:
    name = deployment.assemble(tmp_path / "out", make_checkpoint(tmp_path / "model.pt"), app)
    assert name == f"{NAME}_demo"
    text = (tmp_path / "out" / "app" / "model" / name / "configs" / "metadata.json").read_text()
    assert json.loads(text)["description"].startswith("DEMONSTRATION ONLY, trained on synthetic scans")


def test_the_description_names_the_network_of_the_metadata() -> None:
    metadata = {"network": {"name": "infnet"}, "preprocessing": {"size": 64}, "data": {"name": "zenodo"}}
    described = deployment.resolved_metadata(metadata)["description"]
    assert described.startswith("Weights trained on zenodo. ")
    assert "with infnet" in described
    assert "ResUNet" not in described
    assert "ResUNet" in deployment.resolved_metadata({**metadata, "network": {"name": "resunet"}})["description"]


def test_an_assembly_keeps_what_is_the_users(tmp_path: Path, app: Path, make_checkpoint: Make, studies) -> None:
    out = tmp_path / "out"
    weights = make_checkpoint(tmp_path / "model.pt")
    name = deployment.assemble(out, weights, app)
    first = checkpoints.active(out)
    trained = make_checkpoint(
        out / "checkpoints" / "20990101-000000" / "model.pt", seed=1, data={"name": "annotations", "synthetic": True}
    )
    checkpoints.use(out, "20990101-000000")
    (out / "studies" / "a.nii.gz").write_bytes(b"a scan")
    (out / "app" / "logs").mkdir()
    (out / "app" / "logs" / "app.log").write_text("served")
    (out / "app" / "model" / name / "scripts" / "left_over.py").write_text("")
    before = trained.read_bytes()

    assert deployment.assemble(out, weights, app) == name
    assert checkpoints.active(out) == "20990101-000000"
    assert checkpoints.names(out) == [first, "20990101-000000"]
    assert (out / "app" / "model" / name / "models" / "model.pt").read_bytes() == before
    assert (out / "studies" / "a.nii.gz").read_bytes() == b"a scan"
    assert (out / "app" / "logs" / "app.log").read_text() == "served"
    assert not (out / "app" / "model" / name / "scripts" / "left_over.py").exists()
    assert {path.name for path in out.iterdir()} == {"app", "active", "checkpoints", "studies"}

    deployment.assemble(out, make_checkpoint(tmp_path / "wide.pt", base_width=8), app)
    assert len(checkpoints.names(out)) == 3
    assert checkpoints.active(out) not in (first, "20990101-000000")


def test_an_assembly_that_was_stopped_goes_on(
    tmp_path: Path, app: Path, make_checkpoint: Make, studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = make_checkpoint(tmp_path / "model.pt")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "activate", stop)
        with pytest.raises(KeyboardInterrupt):
            deployment.assemble(tmp_path / "out", weights, app)
    deployment.assemble(tmp_path / "out", weights, app)
    assert [checkpoints.active(tmp_path / "out")] == checkpoints.names(tmp_path / "out")


def test_the_assembly_that_use_names_serves_the_other_network(
    tmp_path: Path, app: Path, make_checkpoint: Make, studies
) -> None:
    out, narrow, wide = (
        tmp_path / "out",
        make_checkpoint(tmp_path / "a.pt"),
        make_checkpoint(tmp_path / "b.pt", base_width=8),
    )
    deployment.assemble(out, narrow, app)
    first = checkpoints.active(out)
    name = deployment.assemble(out, wide, app)
    with pytest.raises(UserError, match="holds") as refused:
        checkpoints.use(out, first)
    named = re.search(r"`make monailabel WEIGHTS=(.+?)`", str(refused.value))
    assert named
    deployment.assemble(out, named[1], app)
    assert checkpoints.active(out) == first
    train = yaml.safe_load((out / "app/model" / name / "configs/train.yaml").read_text())
    assert train["network_def"]["base_width"] == read_metadata(narrow)["network"]["arguments"]["base_width"]


def test_a_folder_with_something_else_is_refused(tmp_path: Path, app: Path, make_checkpoint: Make) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        deployment.assemble(tmp_path / "out", make_checkpoint(tmp_path / "model.pt"), app)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_missing_weights_leave_nothing_behind(tmp_path: Path, app: Path) -> None:
    with pytest.raises(UserError, match="no such weights"):
        deployment.assemble(tmp_path / "out", tmp_path / "none.pt", app)
    assert not (tmp_path / "out").exists()


def test_phantoms_are_there_to_begin_with(tmp_path: Path, app: Path, make_checkpoint: Make) -> None:
    deployment.assemble(tmp_path / "out", make_checkpoint(tmp_path / "model.pt"), app)
    scans = sorted((tmp_path / "out" / "studies").iterdir())
    assert [scan.name for scan in scans] == ["phantom_001.nii.gz", "phantom_002.nii.gz", "phantom_003.nii.gz"]
    assert all(nib.load(scan).get_fdata().min() < -900 for scan in scans)


def test_the_server_is_started_on_this_machine_only() -> None:
    words = deployment.start_command("a folder", NAME).split(" --")
    assert "host 127.0.0.1" in words
    assert "app 'a folder/app'" in words


def test_an_environment_without_monai_label_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    with pytest.raises(UserError, match="MONAI Label is not installed there"):
        deployment.sample_app()


def test_the_installed_package_is_no_source_of_an_app(
    tmp_path: Path, app: Path, make_checkpoint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "BUNDLE", tmp_path)
    with pytest.raises(UserError, match="the installed package"):
        deployment.assemble(tmp_path / "out", make_checkpoint(tmp_path / "model.pt"), app)
    assert not (tmp_path / "out").exists()
