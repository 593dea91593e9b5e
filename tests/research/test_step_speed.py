from __future__ import annotations

import pytest
import torch

from scripts.research.step_speed import training_steps


def test_both_steps_train_and_count_like_work() -> None:
    steps = training_steps(width=8, size=32, batch=2, device=torch.device("cpu"), amp="false")
    before = [next(step.network.parameters()).detach().clone() for step in steps.values()]
    for step, weights in zip(steps.values(), before, strict=True):
        step()
        assert not torch.equal(next(step.network.parameters()), weights)
    ours, plain = (step.gflop for step in steps.values())
    assert plain == pytest.approx(ours, rel=0.3)
