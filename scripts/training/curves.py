"""Curves for TensorBoard that begin with the first figure."""

import atexit
from typing import Any

from torch.utils.tensorboard import SummaryWriter


class Curves:
    """A writer for MONAI's TensorBoard handlers that makes its folder when the first figure comes.

    TensorBoard's own makes folder and file at once, so that a run which fails before it begins
    would leave them behind.

    Args:
        log_dir: folder of the curves.
    """

    def __init__(self, log_dir: str) -> None:
        self._log_dir = log_dir
        self._writer: SummaryWriter | None = None

    def __getattr__(self, name: str) -> Any:
        """Hand everything else on to TensorBoard's writer."""
        if name.startswith("_"):
            raise AttributeError(name)
        if self._writer is None:
            self._writer = SummaryWriter(log_dir=self._log_dir)
            atexit.register(self.close)
        return getattr(self._writer, name)

    def flush(self) -> None:
        """Write what is not on the disk yet."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """End the writer and its thread; the next figure would begin another file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            atexit.unregister(self.close)
