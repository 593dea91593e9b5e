"""The loss in several processes:
together they optimise what one process with the whole batch would."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from scripts.losses.cosupervision import CoSupervisionLoss
from tests.process_group import leave, run_ranks

WORLD = 2


def ddp_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Four images; the second half, which is the second process's share,
    has hardly any infection."""
    generator = torch.Generator().manual_seed(11)
    label = (torch.rand(4, 2, 8, 8, generator=generator) < 0.4).float()
    label[2:] = 0
    label[3, :, 0, :2] = 1
    return torch.randn(4, 1, 8, 8, generator=generator), label


def small_network() -> nn.Module:
    torch.manual_seed(12)
    return nn.Conv2d(1, 6, 3, padding=1)


def worker(rank: int, folder: Path) -> None:
    """One process of the group: its share of the batch, forward, backward under DDP,
    results to a file."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=WORLD)
    image, label = (part.chunk(WORLD)[rank] for part in ddp_batch())
    results = {}
    for batch_dice in (True, False):
        model = small_network()
        parallel = DistributedDataParallel(model)
        loss = CoSupervisionLoss(batch_dice=batch_dice)(parallel(image), label)
        loss.backward()
        results[batch_dice] = (loss.detach(), model.weight.grad, model.bias.grad)
    leave(rank, WORLD, folder, results)


def test_processes_together_are_one_process(tmp_path: Path) -> None:
    run_ranks(worker, WORLD, tmp_path)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]

    image, label = ddp_batch()
    for batch_dice in (True, False):
        model = small_network()
        loss = CoSupervisionLoss(batch_dice=batch_dice)(model(image), label)
        loss.backward()
        mean_loss = torch.stack([rank[batch_dice][0] for rank in ranks]).mean()
        torch.testing.assert_close(mean_loss, loss.detach(), rtol=0, atol=1e-6)
        for rank in ranks:
            if batch_dice:
                torch.testing.assert_close(rank[True][0], loss.detach(), rtol=0, atol=1e-6)
            torch.testing.assert_close(rank[batch_dice][1], model.weight.grad, rtol=0, atol=1e-6)
            torch.testing.assert_close(rank[batch_dice][2], model.bias.grad, rtol=0, atol=1e-6)
