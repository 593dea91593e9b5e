"""`python -m scripts publish WEIGHTS TARGET DATA`: weights in half precision, if their masks stay the same."""

from __future__ import annotations

from pathlib import Path

from scripts.settings import usable_device
from scripts.training.publishing import publish as write_published


def publish(weights: str, target: str, data: str, device: str | None = None) -> None:
    """Writes trained weights in half precision, with their card, for a repository.

    The masks of the cases of their validation fold are compared; weights that half precision changes are refused.

    Args:
        weights: trained weights with their card, best after `calibrate`.
        target: the weights to write, such as models/model.pt.
        data: the prepared data set that they were trained on.
        device: cpu, cuda, mps; the first that is there unless given.
    """
    changed = write_published(Path(weights), Path(target), data, usable_device(device))
    size = Path(target).stat().st_size / 2**20
    print(f"{target}: {size:.1f} MB; of a case at most {changed['voxels']:.5%} of the voxels and", end=" ")
    print(f"{changed['dice']:.5f} of the Dice change")
