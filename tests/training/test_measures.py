"""Measures of a validation: by hand, without reading from the device, and over processes.

The file is also the program of each process (`python test_measures.py RANK FOLDER`).
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import from_engine
from torch.utils._python_dispatch import TorchDispatchMode

from scripts.metrics import measure_all
from scripts.training.measures import MeasuresHandler

NAMES = ("dice", "iou", "sensitivity", "precision", "mae", "e_measure", "s_measure")
WORLD = 2


def maps(number: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and masks (number, 1, 12, 12); the second mask is empty."""
    generator = torch.Generator().manual_seed(3)
    prob = torch.rand(number, 1, 12, 12, generator=generator)
    target = (prob + 0.4 * torch.rand(prob.shape, generator=generator) > 0.9).float()
    target[1] = 0
    return prob, target


def run(handler: MeasuresHandler, prob: torch.Tensor, target: torch.Tensor, batch: int = 2) -> Engine:
    """A validation of decollated batches."""

    def step(engine: Engine, index: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        return [{"pred": prob[k], "label": target[k]} for k in index.tolist()]

    engine = Engine(step)
    handler.attach(engine, "val_measures")
    engine.run(list(torch.arange(len(prob)).split(batch)))
    return engine


def handler(prefix: str = "val_mean_", **options: object) -> MeasuresHandler:
    return MeasuresHandler(NAMES, from_engine(["pred", "label"]), prefix, **options)  # type: ignore[arg-type]


def test_each_measure_is_the_mean_over_the_slices_that_define_it() -> None:
    prob, target = maps()
    found = run(handler(), prob, target).state.metrics
    expected = {f"val_mean_{name}": v.nanmean().item() for name, v in measure_all(prob, target, names=NAMES).items()}
    assert found == pytest.approx(expected, abs=1e-12)  # and nothing is called val_measures
    rows = [(p >= 0.5).flatten() & (t > 0).flatten() for p, t in zip(prob, target, strict=True)]
    by_hand = [float(tp.sum() / t.sum()) for tp, t in zip(rows, target, strict=True) if t.any()]
    assert len(by_hand) == 4
    assert found["val_mean_sensitivity"] == pytest.approx(sum(by_hand) / 4, abs=1e-6)


def test_a_set_without_lesion_has_no_sensitivity() -> None:
    prob, target = maps()
    found = run(handler(), prob, 0 * target).state.metrics
    assert math.isnan(found["val_mean_sensitivity"])
    assert found["val_mean_precision"] == 0
    assert found["val_mean_mae"] == pytest.approx(prob.mean().item(), abs=1e-6)


def test_volumes_count_as_cases() -> None:
    prob, target = (one.view(2, 2, 1, 12, 12).movedim(1, -1) for one in (m[:4] for m in maps()))
    found = run(handler("val_case_", aggregation="case"), prob, target, batch=1).state.metrics
    overlap = ((prob >= 0.5) & (target > 0)).flatten(1).sum(1)
    dice = 2 * overlap / ((prob >= 0.5).flatten(1).sum(1) + target.flatten(1).sum(1))
    assert found["val_case_dice"] == pytest.approx(dice.mean().item(), abs=1e-6)


class Reads(TorchDispatchMode):
    """Counts how often a value of a tensor is read on the host."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.number += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_the_number_of_slices_does_not_change_how_often_the_device_is_read() -> None:
    counts = []
    for number in (4, 12):
        prob, target = maps(number)
        batches = [[{"pred": prob[k], "label": target[k]}] for k in range(number)]
        engine = Engine(lambda _, batch: batch)
        handler().attach(engine, "val_measures")
        with Reads() as reads:
            engine.run(batches)
        counts.append(reads.number)
    assert counts[0] == counts[1]


def worker(rank: int, folder: Path) -> None:
    """One process of the group: its part of the slices, one more than the other's;
    the figures to a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=WORLD)
    found = run(handler(), *(one[rank::WORLD] for one in maps())).state.metrics
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_every_process_has_the_figures_of_the_whole_set(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)], env=environment) for rank in range(WORLD)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    whole = run(handler(), *maps()).state.metrics
    for rank in range(WORLD):
        assert torch.load(tmp_path / f"{rank}.pt") == pytest.approx(whole, abs=1e-12)


if __name__ == "__main__":
    worker(int(sys.argv[1]), Path(sys.argv[2]))
