"""Keep freed memory in the process while networks are trained on a CPU."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from ignite.engine import Engine, Events

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt."""
MAPPINGS, KEPT_BYTES = 65_536, 64 * 2**20
"""glibc's default number of mappings, and the largest value to which it raises its threshold."""


def keep_freed_memory(keep: bool) -> None:
    """Let glibc keep what is freed for the next tensors, or give it back as it usually does.

    glibc maps every tensor of more than 32 MB anew, and the system fills it with zeros: up to a
    fifth of a training step at width 64. Without glibc nothing happens.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(MMAP_MAX, 0 if keep else MAPPINGS)
        libc.mallopt(TRIM_THRESHOLD, -1 if keep else KEPT_BYTES)
        if not keep:
            libc.malloc_trim(0)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory within a `with` statement, see `keep_freed_memory`."""
    keep_freed_memory(True)
    try:
        yield
    finally:
        keep_freed_memory(False)


class KeepFreedMemory:
    """Ignite handler of the trainer that keeps freed memory while it trains on a CPU."""

    def attach(self, engine: Engine) -> None:
        """Register the handler with the trainer."""
        if torch.device(engine.state.device).type == "cpu":
            engine.add_event_handler(Events.STARTED, lambda: keep_freed_memory(True))
            engine.add_event_handler(Events.COMPLETED, lambda: keep_freed_memory(False))
