"""Which masks the model made: a label that is one of them, unchanged, holds nothing to learn."""

from hashlib import sha256
from pathlib import Path

import numpy as np

from ...io.reading import read_label
from ...transforms.items import CODE_TOLERANCE

FILE = "model_masks.txt"
UNCHANGED = "a mask of the model, unchanged"


class ModelMasks:
    """The masks that a deployment's models answered, by digest; they outlast the server.

    Args:
        deployment: folder of the file, which holds a line per mask.
    """

    def __init__(self, deployment: Path) -> None:
        self._file = deployment / FILE

    def add(self, mask: str, scan: str) -> None:
        """Remember a mask.

        Args:
            mask: its file, on the scan's grid.
            scan: the scan's file.
        """
        line = f"{_digest(mask, scan)}\n"
        if line.strip() not in self._known():
            with self._file.open("a", encoding="ascii") as file:  # one short write: lines of two processes stay whole
                file.write(line)

    def holds(self, label: str, scan: str) -> bool:
        """Return whether a label equals a mask of the model, voxel for voxel."""
        return _digest(label, scan) in self._known()

    def _known(self) -> set[str]:
        return set(self._file.read_text(encoding="ascii").split()) if self._file.exists() else set()


def _digest(mask: str, scan: str) -> str:
    """Return the same text for the same voxels in any format; empty ones differ by scan."""
    marked = read_label(Path(mask)) > CODE_TOLERANCE
    name = "" if marked.any() else Path(scan).name
    return sha256(f"{marked.shape} {name}".encode() + np.packbits(marked).tobytes()).hexdigest()
