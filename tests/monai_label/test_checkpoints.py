from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scripts.errors import UserError
from scripts.inference.metadata import read_metadata
from scripts.monai_label import checkpoints

Make = Callable[..., Path]


@pytest.fixture
def deployment(tmp_path: Path, make_checkpoint: Make) -> Path:
    """A deployment with one checkpoint in use."""
    folder = tmp_path / "deployment"
    (folder / "checkpoints").mkdir(parents=True)
    checkpoints.activate(folder, checkpoints.add(folder, make_checkpoint(tmp_path / "given.pt")))
    return folder


def train(deployment: Path, make_checkpoint: Make, seed: int, stamp: str, **figures: object) -> str:
    """What a training from the server leaves, published."""
    data = checkpoints.describe_annotations(str(deployment), [{"image": "/s/a.nii.gz"}], [], pretrained=True)
    run = deployment / "runs" / stamp
    make_checkpoint(run / "model.pt", seed=seed, data=data, figures=figures)
    (run / "last.pt").write_bytes(b"optimizer")
    (run / "history.csv").write_text("epoch\n1\n")
    checkpoints.publish(str(deployment), str(run))
    return checkpoints.active(deployment)


VALIDATED = {"validation": {"val_mean_dice": 0.81234}, "slices": 24}


def test_a_training_becomes_a_checkpoint_with_date_metric_and_metadata(deployment: Path, make_checkpoint: Make) -> None:
    first = checkpoints.active(deployment)
    before = {path.name: path.read_bytes() for path in (deployment / "checkpoints" / first).iterdir()}
    name = train(deployment, make_checkpoint, 1, "20990101-101500", **VALIDATED)
    assert name == "20990101-101500_dice-0.812"
    folder = deployment / "checkpoints" / name
    assert {path.name for path in folder.iterdir()} == {"model.pt", "model.json", "history.csv"}
    metadata = read_metadata(deployment / "active" / "model.pt")
    assert metadata["data"]["started_from"]["checkpoint"] == first
    assert metadata["data"]["training_scans"] == ["a.nii.gz"]
    assert metadata["data"]["synthetic"] is True  # its first weights are a demonstration's
    assert metadata["sha256"] != read_metadata(deployment / "checkpoints" / first / "model.pt")["sha256"]
    assert {path.name: path.read_bytes() for path in (deployment / "checkpoints" / first).iterdir()} == before
    assert not any((deployment / "runs").iterdir())


def test_a_training_without_validation_has_no_metric_in_its_name(deployment: Path, make_checkpoint: Make) -> None:
    assert train(deployment, make_checkpoint, 1, "20990101-101500") == "20990101-101500"


def test_back_goes_to_the_parent_and_not_to_the_one_before(deployment: Path, make_checkpoint: Make) -> None:
    first = checkpoints.active(deployment)
    worse = train(deployment, make_checkpoint, 1, "20990101-101500", **VALIDATED)
    assert checkpoints.back(deployment) == first
    better = train(deployment, make_checkpoint, 2, "20990102-101500", **VALIDATED)  # again from the first
    assert checkpoints.back(deployment) == first
    assert checkpoints.active(deployment) == first
    assert checkpoints.names(deployment) == [first, worse, better]
    assert checkpoints.use(deployment, better) == better
    checkpoints.use(deployment, first)
    with pytest.raises(UserError, match="was not trained from another checkpoint"):
        checkpoints.back(deployment)


def test_the_table_says_what_each_was_trained_on(deployment: Path, make_checkpoint: Make) -> None:
    first = checkpoints.active(deployment)
    name = train(deployment, make_checkpoint, 1, "20990101-101500", **VALIDATED)
    table = checkpoints.table(deployment).set_index("checkpoint")
    assert list(table.index) == [first, name]
    assert list(table["in use"]) == ["", "yes"]
    assert table.loc[name, "from"] == first
    assert table.loc[name, "trained on"] == "annotations, 1 cases"
    assert table.loc[name, "slice Dice"] == 0.81234
    assert table.loc[name, "n slices"] == 24


def test_weights_that_are_there_are_not_added_twice(deployment: Path, tmp_path: Path) -> None:
    assert checkpoints.add(deployment, tmp_path / "given.pt") == checkpoints.active(deployment)
    assert len(checkpoints.names(deployment)) == 1


def test_another_network_is_not_put_under_a_server_made_for_this_one(deployment: Path, make_checkpoint: Make) -> None:
    in_use = checkpoints.active(deployment)
    make_checkpoint(deployment / "checkpoints" / "wide" / "model.pt", base_width=8)
    with pytest.raises(UserError, match=r"wide: holds .*'base_width': 8.*`make monailabel WEIGHTS="):
        checkpoints.use(deployment, "wide")
    assert checkpoints.active(deployment) == in_use


def test_damaged_weights_are_not_put_in_use(deployment: Path, make_checkpoint: Make) -> None:
    in_use = checkpoints.active(deployment)
    damaged = make_checkpoint(deployment / "checkpoints" / "damaged" / "model.pt", seed=1)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(UserError, match="sha256"):
        checkpoints.use(deployment, "damaged")
    assert checkpoints.active(deployment) == in_use


def test_a_checkpoint_is_never_replaced(deployment: Path, make_checkpoint: Make) -> None:
    name = train(deployment, make_checkpoint, 1, "20990101-101500", **VALIDATED)
    with pytest.raises(UserError, match="never replaced"):
        train(deployment, make_checkpoint, 2, "20990101-101500", **VALIDATED)
    kept = torch.load(deployment / "checkpoints" / name / "model.pt", weights_only=True)
    assert json.loads((deployment / "active" / "model.json").read_text())["sha256"]
    assert kept


def test_unknown_names_and_folders_are_said(deployment: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint 'x'"):
        checkpoints.use(deployment, "x")
    with pytest.raises(UserError, match="no MONAI Label deployment"):
        checkpoints.table(tmp_path)


def test_a_training_from_random_weights_has_no_parent(deployment: Path) -> None:
    data = checkpoints.describe_annotations(str(deployment), [{"image": "a"}], [], pretrained=False)
    assert data["started_from"] is None
    assert data["synthetic"] is False


def test_trainings_of_one_second_have_names_of_their_own(deployment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is a checkpoint by then, with its metric in the name or without."""
    (deployment / "checkpoints/20261129-120000_dice-0.500").mkdir()
    (deployment / "checkpoints/20261129-120001").mkdir()
    monkeypatch.setattr(checkpoints, "time_stamp", iter([f"20261129-12000{second}" for second in (0, 1, 2)]).__next__)
    assert checkpoints.new_run(str(deployment)) == str(deployment.resolve() / "runs/20261129-120002")
