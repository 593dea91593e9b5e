"""Tell which process of a distributed run this is."""

from typing import Any

import torch.distributed as dist
from monai.data import DistributedSampler
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset, Sampler, SequentialSampler

from ..settings import is_distributed


def is_main_process() -> bool:
    """Whether this process writes the files of the run: rank 0, or the only one."""
    return not is_distributed() or dist.get_rank() == 0


def unwrapped(network: nn.Module) -> nn.Module:
    """Return a network without its DistributedDataParallel wrapper."""
    return network.module if isinstance(network, DistributedDataParallel) else network


def share_buffers(network: nn.Module) -> None:
    """Give all processes the buffers of rank 0, whose network is saved; they call it together."""
    if is_distributed():
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def validation_sampler(dataset: Dataset[Any], num_replicas: int, rank: int) -> Sampler[int]:
    """Return what deals the items out to the processes, each item once.

    Fewer items than processes, such as a few volumes, or none, are given to every process whole:
    one without any could not take part in the figures, and means stay as they are.
    """
    if len(dataset) < num_replicas:  # type: ignore[arg-type]
        return SequentialSampler(dataset)  # type: ignore[arg-type]
    return DistributedSampler(dataset, shuffle=False, even_divisible=False, num_replicas=num_replicas, rank=rank)
