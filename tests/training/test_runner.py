"""What the runner says of mistakes, of an interruption and of missing packages,
and ids that no config knows."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from scripts.errors import UserError
from scripts.training import runner
from scripts.training.run_folder import kept_of_training
from scripts.training.runner import (
    last_lines,
    missing_package,
    refuse_unknown_arguments,
    refuse_unknown_ids,
    unknown_ids,
)

RUN_IDS = ["initialize", "run", "training", "finalize"]
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NETWORKS = sorted(path.stem for path in (CONFIGS / "networks").iterdir())
PRESETS = sorted(path.stem for path in (CONFIGS / "presets").iterdir())


def layered(*names: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.yaml") for name in names])
    return parser


@pytest.mark.parametrize(
    "names",
    [
        ("train",),
        ("train", "evaluate"),
        ("train", "multiclass"),
        ("train", "evaluate", "evaluate_multiclass"),
        ("train", "monai_label"),
        ("train", "multi_gpu_train"),
        ("inference",),
        ("semi_supervised", "semi_infnet"),
        *itertools.product(["train"], [f"networks/{name}" for name in NETWORKS], [f"presets/{PRESETS[0]}"]),
        *itertools.product(["train"], [f"presets/{name}" for name in PRESETS]),
    ],
    ids="+".join,
)
def test_every_id_and_argument_of_the_configs_is_known(names: tuple[str, ...]) -> None:
    parser = layered(*names)
    assert unknown_ids(parser.config, RUN_IDS) == []
    refuse_unknown_arguments(parser)


@pytest.mark.parametrize(
    ("names", "unknown", "said"),
    [
        (("train",), "epochs", "--epochs (max_epochs?)"),
        (("train",), "train#max_epochs", "--train#max_epochs (max_epochs?)"),
        (("train",), "rounds", "--rounds"),  # of a file that is not part of this run
        (("inference",), "treshold", "--treshold (threshold?)"),
        (("train", "evaluate"), "validate#metric", "--validate#metric"),
    ],
)
def test_an_unknown_id_is_refused_by_name(names: tuple[str, ...], unknown: str, said: str) -> None:
    parser = layered(*names)
    parser[unknown] = 2
    with pytest.raises(UserError) as refused:
        refuse_unknown_ids(parser.config, RUN_IDS)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("argument", "target"),
    [
        ("optimizer#learning_rate", "torch.optim.Adam"),
        ("train#trainer#scales", "monai.engines.trainer.SupervisedTrainer"),  # that of Inf-Net's trainer
        ("train#preprocessing#transforms#0#probability", "monai.transforms.spatial.dictionary.RandFlipd"),
        ("given#device#fallback", "scripts.settings.usable_device"),  # a function
    ],
)
def test_an_argument_that_a_component_does_not_have_is_refused(argument: str, target: str) -> None:
    parser = layered("train")
    parser[argument] = 2
    with pytest.raises(UserError) as refused:
        refuse_unknown_arguments(parser)
    assert str(refused.value).startswith(f"--{argument}: {target} has no such argument; expected: one of ")


def test_arguments_are_not_looked_at_where_any_will_do_or_the_target_is_none_of_ours() -> None:
    parser = layered("train")
    for target in ("builtins.dict", "no.such.place", "$dict", "@network_def", "scripts.version.VERSION"):
        parser["note"] = {"_target_": target, "anything": 1}
        refuse_unknown_arguments(parser)


def test_a_component_whose_package_is_not_there_is_left_to_who_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is disabled is never made."""
    (tmp_path / "with_extra.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    parser = layered("train")
    parser["note"] = {"_target_": "with_extra.Handler", "_disabled_": True, "anything": 1}
    refuse_unknown_arguments(parser)


def test_ids_of_an_own_overlay_are_known_where_it_uses_them() -> None:
    parser = layered("train")
    parser.update({"peak": 0.1, "learning_rate": "$@peak / 2", "imports": ["$import os"], "_desc_": "a note"})
    refuse_unknown_ids(parser.config, RUN_IDS)


def test_a_workflow_in_python_refuses_them_before_it_writes(
    make_dataset: Callable[..., Path], bundle_root: Path, tmp_path: Path
) -> None:
    flow = ConfigWorkflow(
        str(bundle_root / "configs/train.yaml"),
        logging_file=False,
        dataset_dir=str(make_dataset()),
        output_dir=str(tmp_path / "run"),
        epochs=2,
    )
    flow.initialize()
    hook = sys.excepthook
    with pytest.raises(RuntimeError) as wrapped:
        flow.run()
    assert "--epochs" in str(wrapped.value.__cause__)
    assert sys.excepthook is hook  # a program that runs a workflow keeps its own way to report
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [["--held_out", ""], ["--held_out="], ["--train#dataset#held_out="]])
def test_an_empty_word_of_the_runner_is_no_default(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of `--held_out "$LIST"`, where LIST is not set, nobody would have been held out."""
    monkeypatch.setattr(runner, "in_bundle_runner", lambda: True)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # which is replaced
    monkeypatch.setattr(sys, "argv", ["runner", "run", "training", *words])
    with pytest.raises(UserError, match=f"^an empty word (after|in) {words[0]}; expected: a value"):
        runner.begin(lambda: "nothing")


def said(error: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    last_lines(lambda: "nothing is kept")(type(error), error, None)
    return capsys.readouterr().err


def test_a_wrapped_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = UserError("a.nii: empty")
    assert said(wrapped, capsys) == "error: a.nii: empty\n"


def test_an_interruption_says_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(KeyboardInterrupt(), capsys) == "\nstopped: nothing is kept\n"


def test_a_missing_package_is_named_last(capsys: pytest.CaptureFixture[str]) -> None:
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = ImportError("from mlflow import x (No module named 'mlflow').")
    lines = said(wrapped, capsys).splitlines()
    assert lines[-1] == "error: the package mlflow is not installed; expected: pip install mlflow"
    assert any("wrapped" in line for line in lines[:-1])
    assert missing_package(ImportError("No module named 'scripts.x'")) is None
    assert missing_package(ValueError("x")) is None


def test_another_error_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(ValueError("a defect"), capsys) == "ValueError: a defect\n"


def test_before_the_first_state_nothing_is_kept(tmp_path: Path) -> None:
    assert "no state was saved" in kept_of_training(str(tmp_path))
