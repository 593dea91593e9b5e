"""`python -m scripts publish WEIGHTS TARGET DATA`: weights for a repository, halved if masks stay the same."""

from __future__ import annotations

from pathlib import Path

from ..inference.publishing import is_faithful
from ..inference.publishing import publish as write_published
from ..settings import usable_device


def publish(weights: str, target: str, data: str, device: str | None = None) -> None:
    """Writes trained weights with their metadata for a repository, in half precision if that does not change masks.

    The masks of the cases of their validation fold are compared; where they change the weights stay
    as they are.

    Args:
        weights: trained weights with their metadata, best after `calibrate`.
        target: the weights to write, such as models/model.pt.
        data: the prepared data set that they were trained on.
        device: cpu, cuda, mps; the first that is there unless given.
    """
    changed = write_published(Path(weights), Path(target), data, usable_device(device))
    size = Path(target).stat().st_size / 2**20
    precision = "half precision" if is_faithful(changed) else "full precision"
    print(f"{target}: {size:.1f} MB in {precision}; half precision changes at most", end=" ")
    print(f"{changed['voxels']:.5%} of the voxels and {changed['dice']:.5f} of the Dice of a case")
