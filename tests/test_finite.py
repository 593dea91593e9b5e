"""Numbers that are none end in one line that names the file, wherever weights or scans come in."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from scripts.data.datalist import read_datalist
from scripts.errors import UserError, find_user_error
from scripts.files import sha256
from scripts.finite import load_weights, save_tensors
from scripts.inference.building import preprocessing_from_metadata, trained_network
from scripts.inference.hounsfield import HounsfieldSlices
from scripts.inference.metadata import metadata_path, read_metadata
from scripts.inference.predictor import Predictor
from scripts.inference.segmenter import Segmenter
from scripts.io.reading import read_scan
from scripts.pipeline.batch import exit_code, record, segment_in_turn
from scripts.pipeline.case import CaseSegmenter
from scripts.pipeline.inputs import expand_inputs
from scripts.pipeline.job import describe
from scripts.research.classify import Classifier
from scripts.training.checkpoint import RunCheckpoint, StartWeights
from scripts.transforms.slice_input import SliceInput
from scripts.version import BUNDLE

CPU = torch.device("cpu")
MakeScan = Callable[..., tuple[Path, Path]]
MakeCheckpoint = Callable[..., Path]


def change_weights(path: Path, **values: float) -> Path:
    """Sets the first number of entries and brings the hash in the metadata up to date."""
    state = torch.load(path, weights_only=True)
    for key, value in values.items():
        state[key.replace("__", ".")].view(-1)[0] = value
    torch.save(state, path)
    change_metadata(path, sha256=sha256(path))
    return path


def change_metadata(path: Path, **values: Any) -> None:
    metadata = json.loads(metadata_path(path).read_text())
    metadata_path(path).write_text(json.dumps({**metadata, **values}))


@pytest.fixture
def checkpoint(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model.pt", size=32)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: MakeCheckpoint) -> list[str]:
    """Entries of the network's weights: a weight, a running variance,
    and the bias of the last convolution."""
    state = torch.load(make_checkpoint(tmp_path_factory.mktemp("names") / "model.pt"), weights_only=True)
    first = next(key for key in state if key.endswith(".weight"))
    variance = next(key for key in state if key.endswith("running_var"))
    last = "out.bias"
    assert last in state
    return [first, variance, last]


def encoded(key: str) -> str:
    return key.replace(".", "__")


def mistake(call: Callable[[], object]) -> str:
    """The user's mistake that a call ends with, below what MONAI and ignite wrap around it;
    empty without one."""
    try:
        call()
    except Exception as error:
        return str(find_user_error(error) or "")
    return ""


def inference_metadata(path: Path) -> None:
    """What `run inference` and MONAI Label do first."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs/inference.yaml"))
    parser["checkpoint"] = str(path)
    parser.get_parsed_content("network_def")


def evaluation_metadata(path: Path) -> None:
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / name) for name in ("train.yaml", "evaluate.yaml")])
    parser["checkpoint"] = str(path)
    parser.get_parsed_content("network_def")


ENTRIES: dict[str, Callable[[Path], object]] = {
    "segment": lambda path: Segmenter(path, "cpu"),
    "classify": lambda path: Classifier(path, "cpu"),
    "calibrate, publish, pseudo labels": lambda path: trained_network(path, CPU),
    "fine-tuning": lambda path: StartWeights(str(path), torch.nn.Linear(1, 1)),
    "run inference, MONAI Label": inference_metadata,
    "evaluation": evaluation_metadata,
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (0, torch.zeros(2)),
        ("a", torch.zeros(2, dtype=torch.float8_e4m3fn)),
        ("a.running_var", torch.zeros(2, dtype=torch.complex64)),
        ("a", torch.eye(2).to_sparse()),
        ("a", torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged)),
        ("a", torch.zeros(2, device="meta")),
    ],
)
def test_weights_that_hold_what_cannot_be_checked_are_refused(key: object, value: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"first": torch.zeros(1), key: value}, tmp_path / "model.pt")
    found = r"\((dict|UnpicklingError)\)"  # torch from 2.15 on does not load every one of them itself
    with pytest.raises(
        UserError, match=rf"model\.pt: no plain state dict {found}; expected: weights that training wrote"
    ):
        load_weights(tmp_path / "model.pt")


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_refuses_weights_that_are_not_finite(entry: str, checkpoint: Path, names: list[str]) -> None:
    change_weights(checkpoint, **{encoded(names[0]): math.nan})
    found = mistake(lambda: ENTRIES[entry](checkpoint))
    assert found.startswith(f"{checkpoint}: {names[0]} of the weights holds NaN or infinity")


@pytest.mark.parametrize(
    ("entry", "value", "reason"),
    [(0, math.inf, "NaN or infinity"), (0, -math.inf, "NaN or infinity"), (1, math.nan, "NaN or infinity"),
     (1, -1e-6, "a negative variance")],
)  # fmt: skip
def test_what_weights_may_not_hold(entry: int, value: float, reason: str, checkpoint: Path, names: list[str]) -> None:
    read_metadata(checkpoint)
    change_weights(checkpoint, **{encoded(names[entry]): value})
    with pytest.raises(UserError, match=f"{names[entry]} of the weights holds {reason}"):
        read_metadata(checkpoint)


def test_weights_may_be_negative_and_a_variance_0(checkpoint: Path, names: list[str]) -> None:
    change_weights(checkpoint, **{encoded(names[0]): -3.0, encoded(names[1]): 0.0})
    read_metadata(checkpoint)


def test_training_neither_writes_nor_resumes_such_weights(tmp_path: Path) -> None:
    network, evaluator = torch.nn.Linear(1, 1, bias=False), Engine(lambda engine, batch: None)
    evaluator.state.best_metric, evaluator.state.best_metric_epoch = -1.0, -1
    metadata = {"network": {}, "preprocessing": {}, "data": {}}
    run = RunCheckpoint(str(tmp_path), network, network, evaluator, {}, metadata, resume=True)
    trainer = Engine(lambda engine, batch: None)
    trainer.state.device = CPU  # type: ignore[attr-defined]
    torch.nn.init.constant_(network.weight, 1.0)
    run.save(trainer)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    torch.nn.init.constant_(network.weight, math.nan)
    with pytest.raises(UserError, match=r"epoch 0: weight of the weights holds NaN"):
        run.save(trainer)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    state["network"]["weight"].fill_(math.inf)
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(UserError, match=r"last\.pt: weight of the weights holds NaN or infinity"):
        run.load(trainer)


@pytest.mark.parametrize(
    ("section", "value", "named"),
    [
        ("operating_point", {"threshold": math.nan}, "operating_point.threshold is nan"),
        ("operating_point", {"smallest_lesion_mm3": math.inf}, "operating_point.smallest_lesion_mm3 is inf"),
        ("preprocessing", {"size": 32, "window": [-1250, math.nan]}, "preprocessing.window.1 is nan"),
        ("familiarity", {"limit": -math.inf}, "familiarity.limit is -inf"),
    ],
)
def test_numbers_of_the_metadata_are_finite(section: str, value: object, named: str, checkpoint: Path) -> None:
    change_metadata(checkpoint, **{section: value})
    with pytest.raises(UserError, match=rf"model\.json: {named}"):
        read_metadata(checkpoint)


def test_a_measure_without_a_case_may_be_undefined(checkpoint: Path) -> None:
    change_metadata(checkpoint, figures={"validation": {"val_positive_dice": math.nan}})
    assert math.isnan(read_metadata(checkpoint)["figures"]["validation"]["val_positive_dice"])


@pytest.fixture
def overflowing(checkpoint: Path, names: list[str]) -> Path:
    """Weights that are finite and give infinite maps: two terms of 3e38 are beyond float32."""
    state = torch.load(checkpoint, weights_only=True)
    last = names[2].removesuffix("bias") + "weight"
    state[last].fill_(3e38)
    state[names[2]].fill_(3e38)
    torch.save(state, checkpoint)
    change_metadata(checkpoint, sha256=sha256(checkpoint))
    return checkpoint


def test_a_map_that_is_not_finite_refuses_its_case_and_the_others_go_on(
    weights: Path, make_scan: MakeScan, tmp_path: Path
) -> None:
    good, bad = make_scan("good", shape=(40, 36, 6))[0], make_scan("bad", shape=(40, 36, 7))[0]
    segmenter = Segmenter(weights, "cpu")
    network = segmenter.predictor.network
    segmenter.predictor.network = lambda x: network(x) * (math.nan if len(x) == 7 else 1)  # type: ignore[assignment]
    out, model = tmp_path / "out", CaseSegmenter(segmenter)
    cases = expand_inputs([good.parent], out)
    manifest = record(segment_in_turn(model, cases, out), describe(model), cases, out)
    status = {entry["name"]: entry for entry in manifest["cases"]}
    assert (status["good"]["status"], status["bad"]["status"], exit_code(manifest)) == ("done", "refused", 3)
    assert status["bad"]["message"].startswith(f"{bad}: the network's output is not finite")
    assert (out / "good" / "infection.nii.gz").exists()
    assert not (out / "bad").exists()


def test_run_inference_names_the_scan_and_writes_no_mask(
    overflowing: Path, make_scan: MakeScan, tmp_path: Path
) -> None:
    scan = make_scan()[0]
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs/inference.yaml"))
    parser.update({"dataset_dir": str(scan), "checkpoint": str(overflowing), "output_dir": str(tmp_path / "out")})
    parser["device"] = "cpu"
    found = mistake(lambda: parser.get_parsed_content("run"))
    assert found.startswith(f"{scan}: the network's output is not finite")
    assert not list((tmp_path / "out").glob("*"))


def test_whole_scans_name_the_scan(overflowing: Path, make_scan: MakeScan) -> None:
    scan = make_scan()[0]
    predictor = Predictor.load(overflowing, CPU)
    item = preprocessing_from_metadata(predictor.metadata)({"image": str(scan)})
    with pytest.raises(UserError, match=r"scan\.nii\.gz: the network's output is not finite"):
        predictor.scan_logits(item)


def test_classify_names_the_scan(weights: Path, make_scan: MakeScan) -> None:
    scan = read_scan(make_scan()[0])
    slices = HounsfieldSlices(scan)
    found = Segmenter(weights, "cpu", threshold=0.01).segment(scan, slices, probability=True)
    network = torch.nn.Conv2d(2, 3, 1)
    torch.nn.init.constant_(network.bias, math.nan)
    classifier, metadata = Classifier.__new__(Classifier), {"preprocessing": {"size": 32, "window": [-1250, 250]}}
    classifier.predictor = Predictor(network, metadata, CPU)
    classifier.slice_input = SliceInput.from_metadata(metadata)
    with pytest.raises(UserError, match=r"scan\.nii\.gz: the network's output is not finite"):
        classifier.classify(scan, slices, found)
    assert found.mask.any()


def losses(values: list[float]) -> Iterator[dict[str, torch.Tensor]]:
    yield from ({"loss": torch.tensor(value)} for value in values)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training_before_the_epoch_is_saved(value: float, tmp_path: Path) -> None:
    from scripts.training.handlers import READ_EVERY, StopAtNonFiniteLoss

    values = np.ones(2 * READ_EVERY + 7)
    values[READ_EVERY + 2] = values[READ_EVERY + 4] = value  # steps are counted from 1
    found = losses(list(values))
    trainer, saved = Engine(lambda engine, batch: [next(found)]), []
    StopAtNonFiniteLoss(str(tmp_path)).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: saved.append(engine.state.epoch))
    with pytest.raises(UserError, match=rf"the loss of step {READ_EVERY + 3} \(epoch 2\) is not finite"):
        trainer.run(range(READ_EVERY + 1), max_epochs=2)
    assert saved == [1]
    assert trainer.state.iteration == 2 * READ_EVERY


def test_the_end_of_an_epoch_looks_at_its_losses(tmp_path: Path) -> None:
    from scripts.training.handlers import StopAtNonFiniteLoss

    found = losses([1.0, math.nan, 1.0])
    trainer = Engine(lambda engine, batch: [next(found)])
    StopAtNonFiniteLoss(str(tmp_path)).attach(trainer)
    with pytest.raises(UserError, match=r"the loss of step 2 \(epoch 1\)"):
        trainer.run(range(3), max_epochs=1)


def test_every_training_looks_at_its_losses() -> None:
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs/train.yaml"))
    targets = [handler["_target_"] for handler in parser["train#handlers"]]
    assert targets.index("scripts.training.handlers.StopAtNonFiniteLoss") < targets.index(
        "scripts.training.epochs.ValidationHandler"
    )


@pytest.mark.parametrize("depth", [900, 100_000])
def test_json_nested_beyond_pythons_limit_is_refused(depth: int, tmp_path: Path) -> None:
    """What fuzzing found: a RecursionError, from the parser or from the walk over the numbers."""
    text = '{"data": ' + "[" * depth + "]" * depth + "}"
    for name, read in (("model.json", read_metadata), ("datalist.json", lambda path: read_datalist(path.parent))):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=rf"(?s){name}: .*expected: "):
            read(tmp_path / name)


def test_a_full_disk_is_said_as_such(tmp_path: Path) -> None:
    """torch says `unexpected pos` of a file that cannot grow."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save_tensors({"a": torch.zeros(100_000)}, tmp_path / "weights.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert find_user_error(caught.value) is not None
