"""A validation in several processes that have different numbers of batches.

The file is also the program of each process (`python test_validation_distributed.py RANK FOLDER`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.engines import SupervisedEvaluator
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from scripts.training.averaging import WeightAverage
from scripts.training.epochs import ValidationHandler
from tests.process_group import run_ranks

WORLD = 2
SHARE = 0.5


def worker(rank: int, folder: Path) -> None:
    """Process r has r + 1 batches, and r in its running mean; it validates with and without EMA."""
    torch.set_num_threads(1)
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
    together = torch.stack(means)  # a collective more on one side would pair with this one
    torch.distributed.all_reduce(together)
    torch.save((torch.stack(means), together), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_processes_with_different_numbers_of_batches_validate_the_network_of_rank_0(tmp_path: Path) -> None:
    run_ranks(__file__, WORLD, tmp_path)
    for rank in range(WORLD):
        means, together = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert means.tolist() == pytest.approx([0.0, 0.0])  # 0 less the running mean of rank 0
        assert together.tolist() == pytest.approx([0.0, 0.0])


if __name__ == "__main__":
    worker(int(sys.argv[1]), Path(sys.argv[2]))
