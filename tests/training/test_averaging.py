"""The running mean of weights: by hand, with statistics, and what is refused."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from scripts.errors import UserError
from scripts.training.averaging import WeightAverage


def test_mean_of_weights_and_statistics_by_hand() -> None:
    network = nn.BatchNorm1d(1)
    average = WeightAverage(network, momentum=0.25)
    weights = iter((3.0, 7.0))

    def step(engine: Engine, batch: object) -> None:
        value = next(weights)
        with torch.no_grad():
            network.weight.fill_(value)
            network.running_mean.fill_(2 * value)

    trainer = Engine(step)
    average.attach(trainer)
    trainer.run([0, 0])
    # 1 at first: 0.75 * 1 + 0.25 * 3 = 1.5; 0.75 * 1.5 + 0.25 * 7 = 2.875; and so the statistics
    # from 0: 1.5, 4.625
    assert average.network.weight.item() == pytest.approx(2.875)
    assert average.network.running_mean.item() == pytest.approx(4.625)
    assert network.weight.item() == 7
    assert not average.network.training


def test_the_mean_begins_with_what_a_checkpoint_gave() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = WeightAverage(network, momentum=0.25)  # before the checkpoint is loaded, as in a training
    trainer = Engine(lambda engine, batch: network.weight.data.fill_(3.0))
    trainer.add_event_handler(Events.STARTED, lambda: network.weight.data.fill_(1.0))
    average.attach(trainer)
    trainer.run([0])
    assert average.network.weight.item() == pytest.approx(0.75 * 1 + 0.25 * 3)


def test_without_a_share_it_is_the_network_itself() -> None:
    network = nn.Linear(1, 1)
    average = WeightAverage(network)
    trainer = Engine(lambda engine, batch: None)
    average.attach(trainer)
    trainer.run([0])
    assert average.network is network
    assert average.state_dict() == {}


def test_state_goes_on_where_it_was() -> None:
    first, second = (WeightAverage(nn.Linear(2, 2), momentum=0.1) for _ in range(2))
    second.load_state_dict(first.state_dict())
    for one, other in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(UserError, match="weight_average: the run began without it"):
        second.load_state_dict({})
    with pytest.raises(UserError, match="the run began with it"):
        WeightAverage(nn.Linear(2, 2)).load_state_dict(first.state_dict())


@pytest.mark.parametrize("momentum", [1, -0.1, "often"])
def test_other_momenta_are_refused(momentum: object) -> None:
    with pytest.raises(UserError, match="weight_average is"):
        WeightAverage(nn.Linear(1, 1), momentum)  # type: ignore[arg-type]
