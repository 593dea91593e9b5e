"""Which epoch's weights become model.pt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events

from scripts.cards import read_card
from scripts.errors import UserError
from scripts.training.checkpoint import RunCheckpoint

METRICS = {1: 0.8, 2: 0.5, 4: 0.6}
"""Key metric by epoch; epoch 3 is not validated."""


def run(folder: Path, epochs: int, **settings: Any) -> tuple[float, dict[str, Any]]:
    """A network whose one weight is the number of the epoch; returns the weight that was kept, and the card."""
    network = torch.nn.Linear(1, 1, bias=False)
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.best_metric, evaluator.state.best_metric_epoch = -1.0, -1
    evaluator.data_loader = torch.utils.data.DataLoader(torch.zeros(5, 1))  # type: ignore[attr-defined]
    trainer = Engine(lambda engine, batch: None)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine: Engine) -> None:
        epoch = engine.state.epoch
        torch.nn.init.constant_(network.weight, epoch)
        if epoch in METRICS:
            evaluator.state.epoch, evaluator.state.metrics = epoch, {"val_mean_dice": METRICS[epoch]}
            if METRICS[epoch] > evaluator.state.best_metric:
                evaluator.state.best_metric, evaluator.state.best_metric_epoch = METRICS[epoch], epoch

    card = {"network": {}, "preprocessing": {}, "data": {}}
    folder.mkdir()
    RunCheckpoint(str(folder), network, network, evaluator, {}, card, **settings).attach(trainer)
    trainer.run([0], max_epochs=epochs)
    weights = torch.load(folder / "model.pt", weights_only=True)
    return weights["weight"].item(), read_card(folder / "model.pt")["figures"]


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


def test_another_choice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="keep is 'worst'; accepted: best, last"):
        run(tmp_path / "run", 1, keep="worst")
