"""`python -m scripts publish WEIGHTS TARGET DATA`: weights to distribute, halved if faithful."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from .options import Data, Device


def publish(
    weights: Annotated[Path, Argument(help="Weights with their metadata, after `calibrate`.")],
    target: Annotated[Path, Argument(help="Weights to write, such as models/full.pt.")],
    data: Data,
    device: Device = None,
) -> None:
    """Write trained weights for a repository, in half precision.

    Compares the masks of the validation fold's cases; if they change, full precision stays. Refuses
    weights of more than 80 MB in all in the folder of TARGET.
    """
    from ..inference.publishing import is_faithful
    from ..inference.publishing import publish as write_published
    from ..settings import usable_device

    changed = write_published(weights, target, str(data), usable_device(device))
    size = target.stat().st_size / 2**20
    precision = "half precision" if is_faithful(changed) else "full precision"
    print(f"{target}: {size:.1f} MB in {precision}; half precision changes at most", end=" ")
    print(f"{changed['voxels']:.5%} of the voxels and {changed['dice']:.5f} of the Dice of a case")
