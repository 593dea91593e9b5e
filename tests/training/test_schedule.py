from __future__ import annotations

import re

import pytest
import torch
from ignite.engine import Engine

import scripts.training.schedule
from scripts.errors import UserError
from scripts.training.schedule import PLATEAUS, OneCycle, PlateauSchedule
from scripts.version import BUNDLE


def run(preset: str, values: list[float], lr: float = 1e-4) -> tuple[list[float], int | None]:
    """The learning rate after each validation, and the validation (from 1) that stopped the run."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = PlateauSchedule(optimizer, Engine(lambda e, b: None), preset)
    rates = []
    for count, value in enumerate(values, 1):
        schedule.update(value)
        rates.append(optimizer.param_groups[0]["lr"])
        if schedule.finished:
            return rates, count
    return rates, None


def test_paper_halves_after_25_and_stops_when_the_rate_is_at_its_lowest() -> None:
    rates, stop = run("paper", [1.0] * 400)
    cuts = [index + 1 for index in range(1, len(rates)) if rates[index] != rates[index - 1]]
    assert cuts[:3] == [26, 51, 76]  # 25 validations without improvement each
    assert rates[25] == pytest.approx(5e-5)
    # 1e-4 / 2^6 = 1.6e-6, the seventh cut ends at 1e-6, after which 25 more validations are waited
    # for.
    assert len(cuts) == 7
    assert rates[-1] == pytest.approx(1e-6)
    assert stop == 1 + 8 * 25


def test_paper_counts_from_the_last_improvement() -> None:
    rates, stop = run("paper", [1.0] * 25 + [0.9] + [0.9] * 24)
    assert stop is None
    assert rates[-1] == 1e-4


def test_official_cuts_once_to_a_tenth_after_13_and_stops_after_25() -> None:
    rates, stop = run("official", [0.5] * 60)
    assert rates[12] == 1e-4
    assert rates[13] == pytest.approx(1e-5)
    assert min(rates) == pytest.approx(1e-5)
    assert stop == 26


def test_official_watches_dice_upwards() -> None:
    _, stop = run("official", [i / 100 for i in range(60)])
    assert stop is None


def test_literal_never_cuts() -> None:
    rates, stop = run("literal", [1.0] * 60)
    assert set(rates) == {1e-4}
    assert stop == 26


STOPS = {"paper": (200, 7), "official": (25, 1), "literal": (25, 0)}
"""Validations without improvement until the stop, and cuts of the learning rate before it."""


@pytest.mark.parametrize("preset", PLATEAUS)
@pytest.mark.parametrize("improving", [1, 40])
def test_how_long_a_preset_waits_is_what_the_documents_say(preset: str, improving: int) -> None:
    falling = PLATEAUS[preset].mode == "min"
    values = [1 - index / 100 if falling else index / 100 for index in range(improving)]
    rates, stop = run(preset, values + values[-1:] * 300)
    waited, cuts = STOPS[preset]
    assert stop == improving + waited
    assert len(set(rates)) == 1 + cuts
    text = (BUNDLE / "docs/training.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{preset}`.*\|$", text, flags=re.MULTILINE)
    assert row.split("|")[-2].strip() == f"{waited} epochs"
    assert f"* `{preset}`, {waited}: " in (scripts.training.schedule.__doc__ or "")


def test_state_goes_on_where_it_was() -> None:
    values = [1.0] * 60
    whole, stop = run("paper", values)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    first = PlateauSchedule(optimizer, Engine(lambda e, b: None))
    for value in values[:30]:
        first.update(value)
    second = PlateauSchedule(optimizer, Engine(lambda e, b: None))
    second.load_state_dict(first.state_dict())
    for value in values[30:]:
        second.update(value)
    assert optimizer.param_groups[0]["lr"] == whole[-1]
    assert stop is None


def test_unknown_preset() -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(UserError, match=", ".join(PLATEAUS)):
        PlateauSchedule(optimizer, Engine(lambda e, b: None), "none")


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6, 25])
def test_a_cycle_of_any_length_rises_to_its_peak_and_ends_low(steps: int) -> None:
    """Five steps, and no other number, ended in a ZeroDivisionError of torch."""
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    trainer = Engine(lambda _engine, _batch: rates.append(optimizer.param_groups[0]["lr"]) or optimizer.step())
    rates: list[float] = []
    OneCycle(optimizer, peak=0.01, steps=steps).attach(trainer)
    trainer.run(range(steps))
    assert len(rates) == steps
    assert min(rates) > 0
    assert max(rates) <= 0.01
    if steps >= 5:
        assert rates[0] < max(rates)
        assert max(rates) > 0.005
        assert rates[-1] < 1e-3
