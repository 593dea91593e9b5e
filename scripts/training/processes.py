"""Which process of a distributed run this is."""

from __future__ import annotations

import torch.distributed as dist


def is_distributed() -> bool:
    """Whether this process is one of a process group."""
    return dist.is_available() and dist.is_initialized()


def is_main_process() -> bool:
    """Whether this process writes the files of the run: rank 0, or the only one."""
    return not is_distributed() or dist.get_rank() == 0
