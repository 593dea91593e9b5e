"""Fine-tuning the shipped weights on three small scans."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.data.datalist import describe
from scripts.errors import UserError
from scripts.inference.metadata import read_metadata
from scripts.research.workflows import run_workflow
from scripts.training.fine_tuning import check_same_as_parent, describe_data, describe_parent, read_parent

FILES = ["configs/train.yaml", "configs/finetune.yaml"]
SHORT = {"max_epochs": 1, "batch_size": 4, "device": "cpu", "learning_rate": 1e-9}


def said(error: BaseException) -> str:
    """The message of an error and of what it came from: the runner wraps those of components."""
    return f"{error} {error.__cause__}"


def test_shipped_weights_on_three_scans(bundle_root: Path, make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    parent, out = bundle_root / "models/model.pt", tmp_path / "run"
    dataset = make_dataset(cases=3, folds=3, shape=(40, 36, 3))
    run_workflow(FILES, checkpoint=str(parent), dataset_dir=str(dataset), output_dir=str(out), **SHORT)
    before, after = read_metadata(parent), read_metadata(out / "model.pt")
    for key in ("network", "preprocessing", "operating_point"):
        assert after[key] == before[key], key
    assert after["data"]["name"] == "small"
    assert after["parent"]["sha256"] == before["sha256"]
    assert after["parent"]["data"] == before["data"]
    assert "data_license.txt" in after["parent"]["terms"]
    assert "calibration" not in after  # it was that of the parent's probabilities
    old, new = (torch.load(path, weights_only=True) for path in (parent, out / "model.pt"))
    for name, value in old.items():  # a step of 1e-9: they began as the parent's; half precision is what it ships in
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(new[name], value.float(), rtol=0, atol=1e-6)
    assert describe_parent(str(out / "model.pt"))["datasets"] == [before["data"]["name"], "small"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("setting", "value", "phrase"),
    [
        ("spatial_size", 128, "size 64, here 128"),
        ("field_of_view", "lungs", "field_of_view 'scan', here 'lungs'"),
        ("network_def#base_width", 8, "network"),
    ],
)
def test_what_is_set_differently_is_refused(
    setting: str, value: Any, phrase: str, make_checkpoint, make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    parent = make_checkpoint(tmp_path / "model.pt")
    settings = {"checkpoint": str(parent), "dataset_dir": str(make_dataset()), "output_dir": str(tmp_path / "run")}
    with pytest.raises((UserError, RuntimeError)) as caught:
        run_workflow(FILES, **settings, **SHORT, **{setting: value})
    assert phrase in said(caught.value)
    assert "--allow_differences true" in said(caught.value)
    assert not (tmp_path / "run" / "model.pt").exists()


def test_another_size_when_told(make_checkpoint, make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    parent = make_checkpoint(tmp_path / "model.pt")
    settings = {"checkpoint": str(parent), "dataset_dir": str(make_dataset()), "output_dir": str(tmp_path / "run")}
    run_workflow(FILES, **settings, **SHORT, spatial_size=32, allow_differences="true")
    metadata = json.loads((tmp_path / "run" / "model.json").read_text())
    assert metadata["preprocessing"]["size"] == 32
    assert metadata["parent"]["sha256"] == read_metadata(parent)["sha256"]


def test_train_yaml_alone_does_not_train_another_input_silently(make_checkpoint, tmp_path: Path) -> None:
    parent = make_checkpoint(tmp_path / "model.pt")
    network = read_metadata(parent)["network"]
    same = {"size": 64, "window": (-1250, 250), "intensity": "auto"}  # what is unsaid is the default
    check_same_as_parent(str(parent), network, same)
    with pytest.raises(UserError, match=r"window \[-1250, 250\], here \[-1000, 400\]"):
        check_same_as_parent(str(parent), network, {**same, "window": [-1000, 400]})


def test_start_weights_that_saw_validation_cases_are_named_in_log_and_metadata(
    make_checkpoint, make_dataset: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = make_dataset(cases=4, folds=2)
    saw, own = (str(make_checkpoint(tmp_path / f"{fold}.pt", data=describe(dataset, fold))) for fold in (1, 0))
    for fold, checkpoint in ((0, own), (0, None), (None, saw)):  # the same fold, none, nothing is validated
        assert describe_data(dataset, fold, checkpoint) == describe(dataset, fold)
    data = describe_data(dataset, 0, saw)
    said = (
        f"the weights {read_metadata(saw)['sha256'][:12]}, which the training started from, were trained with fold 1 "
        "left out: they may know validation cases of fold 0"
    )
    assert data == {**describe(dataset, 0), "warnings": [*describe(dataset, 0)["warnings"], said]}
    assert [record.message for record in caplog.records if "weights" in record.message] == [said]


def test_without_a_checkpoint_there_is_nothing_to_fine_tune() -> None:
    with pytest.raises(UserError, match="expected: the weights to fine-tune"):
        read_parent(None)
    assert describe_parent(None) is None
