"""Ranger: its formulas in plain float64,
and that a run goes on from its state as if it had not been stopped."""

from __future__ import annotations

import copy
import io
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scripts.training.ranger import Ranger

SHAPES = [(4, 3, 3, 3), (4,), (5, 4), (1, 6), ()]
PAPER = {"lr": 5e-4, "beta1": 0.95, "beta2": 0.999, "eps": 1e-5, "k": 6, "alpha": 0.5, "weight_decay": 0.0}


class Plain:
    """Ranger of one parameter, one formula after the other;
    `rates` is the learning rate of every step."""

    def __init__(self, weights: np.ndarray, **settings: float) -> None:
        self.theta = weights.astype(np.float64)
        self.phi = self.theta.copy()
        self.m = np.zeros_like(self.theta)
        self.v = np.zeros_like(self.theta)
        self.t = 0
        self.settings = {**PAPER, **settings}

    def step(self, g: np.ndarray) -> None:
        lr, beta1, beta2, eps, k, alpha = (self.settings[n] for n in ("lr", "beta1", "beta2", "eps", "k", "alpha"))
        if g.ndim > 1:
            g = g - g.reshape(len(g), -1).mean(axis=1).reshape(-1, *[1] * (g.ndim - 1))
        g = g + self.settings["weight_decay"] * self.theta
        self.t += 1
        t = self.t
        self.m = beta1 * self.m + (1 - beta1) * g
        self.v = beta2 * self.v + (1 - beta2) * g**2
        rho_end = 2 / (1 - beta2) - 1
        rho = rho_end - 2 * t * beta2**t / (1 - beta2**t)
        mean = self.m / (1 - beta1**t)
        if rho > 5:
            r = math.sqrt((rho - 4) * (rho - 2) * rho_end / ((rho_end - 4) * (rho_end - 2) * rho))
            self.theta = self.theta - lr * r * math.sqrt(1 - beta2**t) * mean / (np.sqrt(self.v) + eps)
        else:
            self.theta = self.theta - lr * mean
        if t % k == 0:
            self.phi = self.phi + alpha * (self.theta - self.phi)
            self.theta = self.phi.copy()


def weights(seed: int = 0, dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def gradients(step: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Gradients with a mean of their own, which centralisation has to take away."""
    generator = torch.Generator().manual_seed(1000 + step)
    return [(0.7 + torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype) for shape in SHAPES]


def run(optimizer: Ranger, parameters: Sequence[nn.Parameter], steps: Sequence[int]) -> None:
    for step in steps:
        for parameter, gradient in zip(parameters, gradients(step, parameters[0].dtype), strict=True):
            parameter.grad = gradient
        optimizer.step()


def assert_close(parameters: Sequence[Tensor], plain: Sequence[Plain]) -> None:
    for parameter, oracle in zip(parameters, plain, strict=True):
        assert np.abs(parameter.detach().numpy() - oracle.theta).max() < 1e-10


# ------------------------------------------------------------------------------------------
# formulas


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1}])
@pytest.mark.parametrize("steps", [1, 5, 6, 7, 60])
def test_steps_are_those_of_the_formulas(steps: int, settings: dict[str, float]) -> None:
    """Steps 1 to 5 come before the variance is known well enough;
    the sixth is the first of both other kinds."""
    parameters = weights()
    plain = [Plain(p.detach().numpy(), **settings) for p in parameters]
    run(Ranger(parameters, **settings), parameters, range(steps))
    for step in range(steps):
        for oracle, gradient in zip(plain, gradients(step), strict=True):
            oracle.step(gradient.numpy())
    assert_close(parameters, plain)


def test_first_steps_by_hand() -> None:
    """A vector with gradient 1: mean 1, so each step is lr;
    after the second (k = 2) half of the way is taken back."""
    parameter = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    optimizer, seen = Ranger([parameter], lr=0.1, k=2), []
    for _ in range(4):
        parameter.grad = torch.ones(1, dtype=torch.float64)
        optimizer.step()
        seen.append(parameter.item())
    assert seen == pytest.approx([2.9, 2.9, 2.8, 2.8], abs=1e-12)


def test_defaults_are_the_papers() -> None:
    paper = {"lr": 5e-4, "betas": (0.95, 0.999), "eps": 1e-5, "k": 6, "alpha": 0.5}
    assert Ranger(weights()).defaults == {**paper, "weight_decay": 0.0}


def test_a_row_keeps_its_mean() -> None:
    """A centralised gradient moves no row's mean while every weight has the same rate (steps 1 to
    5)."""
    parameters = weights()
    before = [p.detach().clone() for p in parameters]
    run(Ranger(parameters, lr=0.1), parameters, range(5))
    for index in (0, 2, 3):
        moved = parameters[index].detach() - before[index]
        assert moved.abs().max() > 0.01
        assert moved.flatten(1).mean(dim=1).abs().max() < 1e-12
    assert (parameters[1].detach() - before[1]).mean().abs() > 0.01


def test_gradients_stay_as_they_were() -> None:
    parameters = weights()
    run(Ranger(parameters), parameters, [0])
    for parameter, gradient in zip(parameters, gradients(0), strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_groups_have_settings_of_their_own() -> None:
    """The published RAdam caches one correction a step for all groups, whatever their betas."""
    parameters = weights()
    other = {"lr": 3e-3, "betas": (0.8, 0.99), "eps": 1e-7, "k": 4, "alpha": 0.8}
    plain = [Plain(p.detach().numpy()) for p in parameters[:2]]
    plain += [
        Plain(p.detach().numpy(), lr=3e-3, beta1=0.8, beta2=0.99, eps=1e-7, k=4, alpha=0.8) for p in parameters[2:]
    ]
    optimizer = Ranger([{"params": parameters[:2]}, {"params": parameters[2:], **other}])
    run(optimizer, parameters, range(25))
    for step in range(25):
        for oracle, gradient in zip(plain, gradients(step), strict=True):
            oracle.step(gradient.numpy())
    assert_close(parameters, plain)


def test_a_parameter_without_gradient_is_left_alone() -> None:
    """It neither moves nor counts steps; later it begins at its own first step."""
    parameters = weights()
    still = parameters[2]
    before = still.detach().clone()
    optimizer = Ranger(parameters)
    for step in range(8):
        for parameter, gradient in zip(parameters, gradients(step), strict=True):
            parameter.grad = None if parameter is still else gradient
        optimizer.step()
    assert torch.equal(still.detach(), before)
    assert still not in optimizer.state
    oracle = Plain(before.numpy())
    for step in range(8, 15):  # and it pauses at its third step
        pause = step == 10
        still.grad = None if pause else gradients(step)[2]
        optimizer.step()
        if not pause:
            oracle.step(gradients(step)[2].numpy())
    assert_close([still], [oracle])
    assert optimizer.state[still]["step"] == 6
    assert optimizer.state[parameters[0]]["step"] == 15


# ----------------------------------------------------------------------------------------------
# state


def saved(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stop", [1, 6, 9])
def test_resumed_is_uninterrupted_bit_for_bit(stop: int, dtype: torch.dtype) -> None:
    whole, part = weights(dtype=dtype), weights(dtype=dtype)
    uninterrupted, first = Ranger(whole, lr=0.01), Ranger(part, lr=0.01)
    run(uninterrupted, whole, range(20))
    run(first, part, range(stop))
    state = saved(first.state_dict())
    resumed = [nn.Parameter(p.detach().clone()) for p in part]
    second = Ranger(resumed, lr=7.0, betas=(0.1, 0.2), eps=0.1, k=3, alpha=0.1)
    second.load_state_dict(state)
    run(second, resumed, range(stop, 20))
    for ours, theirs in zip(resumed, whole, strict=True):
        assert torch.equal(ours, theirs)
        for key, value in uninterrupted.state[theirs].items():
            assert torch.equal(second.state[ours][key], value), key
            assert second.state[ours][key].dtype == value.dtype, key
    assert saved(second.state_dict())["param_groups"] == uninterrupted.state_dict()["param_groups"]


def test_state_is_that_of_radam_and_the_slow_weights() -> None:
    parameters = weights()
    optimizer = Ranger(parameters)
    before = parameters[0].detach().clone()
    run(optimizer, parameters, range(5))
    state = optimizer.state_dict()["state"][0]
    assert set(state) == {"step", "exp_avg", "exp_avg_sq", "slow"}
    assert torch.equal(state["slow"], before)
    run(optimizer, parameters, [5])
    assert torch.equal(optimizer.state_dict()["state"][0]["slow"], parameters[0].detach())
    assert not torch.equal(before, parameters[0].detach())
    assert state["slow"].data_ptr() != parameters[0].data_ptr()


def test_a_copy_goes_on_by_itself() -> None:
    parameters = weights()
    optimizer = Ranger(parameters)
    run(optimizer, parameters, range(4))
    other, others = copy.deepcopy((optimizer, parameters))
    run(optimizer, parameters, range(4, 9))
    run(other, others, range(4, 9))
    assert all(torch.equal(a, b) for a, b in zip(parameters, others, strict=True))


# ------------------------------------------------------------------------------- with the rest of
# torch


SCHEDULES: list[Callable[[Any], Any]] = [
    lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 8], gamma=0.1),
    lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.02, total_steps=12),  # turns beta1 as well
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["steps", "cycle"])
def test_schedules_steer_it(schedule: Callable[[Any], Any]) -> None:
    parameters = weights()
    plain = [Plain(p.detach().numpy()) for p in parameters]
    optimizer = Ranger(parameters, lr=0.01)
    scheduler, rates = schedule(optimizer), set()
    for step in range(12):
        group = optimizer.param_groups[0]
        rates.add(group["lr"])
        for oracle, gradient in zip(plain, gradients(step), strict=True):
            oracle.settings |= {"lr": group["lr"], "beta1": group["betas"][0]}
            oracle.step(gradient.numpy())
        run(optimizer, parameters, [step])
        scheduler.step()
    assert len(rates) >= 3
    assert_close(parameters, plain)


def test_a_closure_is_evaluated_before_the_step() -> None:
    parameter = nn.Parameter(torch.tensor([[1.0, 5.0], [2.0, 2.0]], dtype=torch.float64))
    optimizer = Ranger([parameter], lr=0.1)
    oracle = Plain(parameter.detach().numpy(), lr=0.1)
    parameter.grad = torch.full_like(parameter, 99.0)  # of another loss, long ago

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = parameter.square().sum() / 2
        loss.backward()
        return loss

    for _ in range(7):
        value = (oracle.theta**2).sum() / 2
        oracle.step(oracle.theta)
        assert optimizer.step(closure).item() == pytest.approx(value, rel=1e-12)
    assert_close([parameter], [oracle])


def test_no_deprecated_call_is_made() -> None:
    """The published class uses signatures that torch has removed."""
    parameters = weights()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(Ranger(parameters), parameters, range(13))


def test_it_learns() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
    x = torch.randn(4, 1, 8, 8)
    optimizer, losses = Ranger(model.parameters(), lr=0.02), []
    for _ in range(120):
        optimizer.zero_grad()
        loss = (model(x) - x.roll(1, dims=3)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": -1e-3},
        {"betas": (1.0, 0.9)},
        {"betas": (0.9, -0.1)},
        {"eps": -1.0},
        {"k": 0},
        {"alpha": 0.0},
        {"alpha": 1.5},
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"^{name} is .*expected"):
        Ranger(weights(), **settings)
    with pytest.raises(ValueError, match=f"^{name} is .*expected"):
        Ranger([{"params": weights(), **settings}])
