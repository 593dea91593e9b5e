"""Which epoch's weights become model.pt."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events

from scripts.errors import UserError
from scripts.inference.metadata import read_metadata
from scripts.training import checkpoint
from scripts.training.checkpoint import RunCheckpoint
from scripts.training.run_folder import clear_run_folder

METRICS = {1: 0.8, 2: 0.5, 4: 0.6}
"""Key metric by epoch; epoch 3 is not validated."""


def run(
    folder: Path,
    epochs: int,
    metrics: Mapping[int, float] = METRICS,
    error: BaseException | type[BaseException] | None = None,
    broken: int | None = None,
    **settings: Any,
) -> tuple[float, dict[str, Any]]:
    """A network whose one weight is the number of the epoch; returns the weight that was kept,
    and the metadata.

    An error is raised in the middle of the last epoch; "broken" names an epoch whose last step
    leaves NaN.
    """
    network = torch.nn.Linear(1, 1, bias=False)
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.best_metric, evaluator.state.best_metric_epoch = -1.0, -1
    evaluator.data_loader = torch.utils.data.DataLoader(torch.zeros(5, 1))  # type: ignore[attr-defined]

    def step(engine: Engine, batch: object) -> None:
        if error is not None and engine.state.epoch == epochs:
            torch.nn.init.constant_(network.weight, -1)  # half-way through the epoch
            raise error

    trainer = Engine(step)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine: Engine) -> None:
        epoch = engine.state.epoch
        torch.nn.init.constant_(network.weight, math.nan if epoch == broken else epoch)
        if epoch in metrics:
            evaluator.state.epoch, evaluator.state.metrics = epoch, {"val_mean_dice": metrics[epoch]}
            if metrics[epoch] > evaluator.state.best_metric:
                evaluator.state.best_metric, evaluator.state.best_metric_epoch = metrics[epoch], epoch

    metadata = {"network": {"name": "resunet", "arguments": {}}, "preprocessing": {}, "data": {}}
    folder.mkdir()
    RunCheckpoint(str(folder), network, network, evaluator, {}, metadata, **settings).attach(trainer)
    trainer.run([0], max_epochs=epochs)
    weights = torch.load(folder / "model.pt", weights_only=True)
    return weights["weight"].item(), read_metadata(folder / "model.pt")["figures"]


@pytest.mark.parametrize(("keep", "epochs", "epoch"), [("best", 4, 1), ("last", 4, 4), ("last", 2, 2), ("last", 3, 3)])
def test_the_epoch_that_is_kept(keep: str, epochs: int, epoch: int, tmp_path: Path) -> None:
    weight, figures = run(tmp_path / "run", epochs, keep=keep)
    assert weight == epoch == figures["epoch"]
    if epoch == 3:  # not validated: figures of another epoch are not its own
        assert figures == {"epoch": 3}
    else:
        assert figures["validation"] == {"val_mean_dice": METRICS[epoch]}
        assert figures["kept"] == keep
        assert figures["slices"] == 5


def test_a_folder_belongs_to_one_run_at_a_time(tmp_path: Path) -> None:
    """A second run would replace the files of the first, one with --overwrite remove them."""
    folder, network = tmp_path / "run", torch.nn.Linear(1, 1)
    metadata = {"network": {"name": "resunet", "arguments": {}}, "preprocessing": {}, "data": {}}

    def trainer(step: Callable[[], object]) -> Engine:
        engine, evaluator = Engine(lambda *_: step()), Engine(lambda *_: None)
        evaluator.state.best_metric, evaluator.state.best_metric_epoch = -1.0, -1
        RunCheckpoint(str(folder), network, network, evaluator, {}, metadata, resume=True).attach(engine)
        return engine

    def disturb() -> None:
        for other in (lambda: trainer(list).run([0]), lambda: clear_run_folder(str(folder), overwrite=True)):
            with pytest.raises(UserError, match=f"{folder}: another process works there"):
                other()

    def fail() -> None:
        raise RuntimeError("no memory")

    trainer(disturb).run([0], max_epochs=2)
    assert torch.load(folder / "last.pt", weights_only=True)["epoch"] == 2
    with pytest.raises(RuntimeError, match="no memory"):
        trainer(fail).run([0], max_epochs=3)
    trainer(list).run([0], max_epochs=4)  # a run that ended, however, leaves the folder free
    assert torch.load(folder / "last.pt", weights_only=True)["epoch"] == 4
    clear_run_folder(str(folder), overwrite=True)
    assert list(folder.iterdir()) == []


def test_another_choice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="keep is 'worst'"):
        run(tmp_path / "run", 1, keep="worst")


@pytest.mark.parametrize(("interval", "writes"), [(0, [1, 2, 3, 4]), (600, [1, 4])])
def test_how_often_the_state_is_written(
    interval: float, writes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    monkeypatch.setattr(checkpoint, "write_atomic", lambda path, write: (write(path), written.append(_epoch(path))))
    run(tmp_path / "run", 4, save_interval=interval)
    assert written == writes
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["network"]["weight"].item() == 4


def test_weights_that_wait_are_those_of_their_epoch(tmp_path: Path) -> None:
    """The best epoch is the third of four,
    and none but the first and the last is written when it ends."""
    weight, figures = run(tmp_path / "run", 4, metrics={1: 0.1, 2: 0.5, 3: 0.8, 4: 0.6}, save_interval=600)
    assert weight == figures["epoch"] == 3
    assert figures["validation"] == {"val_mean_dice": 0.8}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("no memory")], ids=str)
def test_the_last_complete_epoch_is_written_when_a_run_is_interrupted(
    error: BaseException | type[BaseException], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(type(error) if isinstance(error, BaseException) else error):
        run(folder, 4, error=error, metrics={1: 0.1, 2: 0.5, 3: 0.8}, save_interval=600)
    state = torch.load(folder / "last.pt", weights_only=True)
    assert (state["epoch"], state["best_metric_epoch"], state["network"]["weight"].item()) == (3, 3, 3)
    assert torch.load(folder / "model.pt", weights_only=True)["weight"].item() == 3


def test_an_interval_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="save_interval is 'often'"):
        run(tmp_path / "run", 1, save_interval="often")


def _epoch(path: Path) -> int:
    return torch.load(path, weights_only=True)["epoch"]


@pytest.mark.parametrize("metrics", [METRICS, {}])
def test_weights_that_became_nan_leave_the_epoch_before(metrics: Mapping[int, float], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"epoch 3: .*finite weights"):
        run(tmp_path / "run", 4, metrics, broken=3, save_interval=1000)
    last = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert (last["epoch"], last["network"]["weight"].item()) == (2, 2)
    read_metadata(tmp_path / "run" / "model.pt")


def test_a_state_that_cannot_be_written_does_not_hide_why_the_run_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    def stop_writing(*_: object, **__: object) -> None:
        monkeypatch.setattr(checkpoint, "write_atomic", full)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(checkpoint, "_copied", stop_writing)
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        run(tmp_path / "run", 3, save_interval=1000)
    assert caught.value.__cause__ is None
