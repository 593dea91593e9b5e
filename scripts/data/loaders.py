"""Serve slices as fast as a device trains: where they lie, and how many processes augment them."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from monai.data import DataLoader
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError
from ..settings import count, flag, is_distributed

logger = logging.getLogger(__name__)

MOST_WORKERS = 8
CORES_THAT_KEEP_UP = 4
"""Processor cores per training process from which on workers are taken to feed a GPU: a core
augments some 150 slices of 192 x 192 per second."""
MOST_OF_A_DEVICE = 0.5
"""Fraction of a GPU's free memory that slices may take; the network needs the rest."""


def cores() -> int:
    """Return the processor cores that this process may use, of a distributed training its part."""
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", torch.distributed.get_world_size())) if is_distributed() else 1
    # a batch system may give a process fewer than the machine has
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // beside)


def slice_device(cache_device: bool | str, device: str | torch.device) -> torch.device:
    """Return where slices lie while a network trains, and where they are augmented.

    Args:
        cache_device: "true", on the training device (not on MPS, which lacks the float64 of MONAI's
            affine transform); "false", on the host; "auto", on a CUDA device where fewer than
            `CORES_THAT_KEEP_UP` cores would augment for it.
        device: where the network trains.
    """
    place, few = torch.device(device), cores() < CORES_THAT_KEEP_UP
    wanted = place.type == "cuda" and few if str(cache_device) == "auto" else flag(cache_device, "cache_device")
    return place if wanted and place.type != "mps" else torch.device("cpu")


def place_stacks(stacks: Sequence[tuple[NDArray[Any], ...]], device: torch.device) -> list[tuple[Tensor, ...]] | None:
    """Copy slices to a device, and log what they take.

    Returns:
        The slices; None, with a line in the log, if they take more than `MOST_OF_A_DEVICE`.
    """
    size = sum(array.nbytes for stack in stacks for array in stack)
    free = free_memory(device)
    if size > MOST_OF_A_DEVICE * free:
        logger.warning(
            f"slices take {size / 2**30:.1f} of {free / 2**30:.1f} GiB free on {device}: they stay on the host"
        )
        return None
    logger.info(f"slices lie on {device}: {size / 2**30:.2f} GiB")
    return [tuple(torch.from_numpy(array).to(device) for array in stack) for stack in stacks]


def free_memory(device: torch.device) -> float:
    """Return the free bytes of a CUDA device; infinite for others, which do not tell."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else math.inf


class SliceLoader(DataLoader):
    """MONAI's data loader, with as many processes as suit the device.

    Args:
        dataset: what is served.
        device: where the network works; batches for CUDA are put into pinned memory.
        num_workers: processes that augment; "auto": none, or on CUDA one per core, at most
            `MOST_WORKERS`. Slices that lie on the device are augmented by the training process.
        **settings: see MONAI's `DataLoader`.

    Raises:
        UserError: for a number of processes that is none, or processes for slices on a device.
    """

    def __init__(
        self, dataset: Dataset[Any], device: str | torch.device, num_workers: int | str = "auto", **settings: Any
    ) -> None:
        on_cuda = torch.device(device).type == "cuda"
        on_device = getattr(dataset, "device", torch.device("cpu")).type != "cpu"
        if str(num_workers) == "auto":
            processes = min(cores(), MOST_WORKERS) if on_cuda and not on_device else 0
        else:
            wanted = "a whole number from 0, or auto"
            processes = count("num_workers", num_workers, wanted, least=0)
        if processes and on_device:
            raise UserError(
                f"num_workers is {num_workers} for slices on {device}; expected: 0, or --cache_device false"
            )
        super().__init__(dataset, processes, pin_memory=on_cuda and not on_device, **settings)
