"""A validation in several processes that have different numbers of batches, or none."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.engines import SupervisedEvaluator
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from scripts.metrics import SegmentationMeasures
from scripts.training.averaging import WeightAverage
from scripts.training.epochs import ValidationHandler
from scripts.training.processes import validation_sampler
from scripts.training.tables import gather
from tests.process_group import leave, run_ranks

WORLD = 2
SHARE = 0.5


def worker(rank: int, folder: Path) -> None:
    """Process r has r + 1 batches, and r in its running mean; it validates with and without EMA.
    Then it judges its part of few cases."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=WORLD)
    means = []
    for momentum in (0.0, SHARE):
        network = DistributedDataParallel(nn.BatchNorm2d(1))
        evaluated = WeightAverage(network, momentum).network
        for norm in (network.module, evaluated):
            norm.running_mean.fill_(rank)  # type: ignore[operator, union-attr]
        batches = [{"image": torch.zeros(1, 1, 2, 2), "label": torch.zeros(1, 1, 2, 2)}] * (rank + 1)
        evaluator = SupervisedEvaluator(device="cpu", val_data_loader=batches, network=evaluated, decollate=False)
        trainer = Engine(lambda engine, batch: None)
        ValidationHandler(interval=1, validator=evaluator).attach(trainer)
        network.register_forward_pre_hook(lambda *_: sys.exit("the wrapper was called"))
        trainer.run([0], max_epochs=1)
        means.append(evaluator.state.output["pred"].mean())
    judged = []
    for items in (1, 2, 3):  # fewer than processes, as many, and more
        measured = SegmentationMeasures(["dice"])
        rows = []
        for item in validation_sampler(range(items), WORLD, rank):  # type: ignore[arg-type]
            measured([torch.ones(1, 2, 2)], [torch.ones(1, 2, 2) if item else torch.eye(2)[None]])  # Dice 1, and 2/3
            rows.append({"case": f"case {item}", "dice": math.nan})
        judged.append((float(measured.aggregate()["dice"]), sorted(row["case"] for row in gather(rows))))
    together = torch.stack(means)  # a collective more on one side would pair with this one
    torch.distributed.all_reduce(together)
    leave(rank, WORLD, folder, (torch.stack(means), together, judged))


def test_processes_with_different_numbers_of_batches_validate_the_network_of_rank_0(tmp_path: Path) -> None:
    run_ranks(worker, WORLD, tmp_path)
    for rank in range(WORLD):
        means, together, judged = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert means.tolist() == pytest.approx([0.0, 0.0])  # 0 less the running mean of rank 0
        assert together.tolist() == pytest.approx([0.0, 0.0])
        assert judged == [
            (pytest.approx((2 / 3 + items - 1) / items), [f"case {item}" for item in range(items)])
            for items in (1, 2, 3)
        ]
