"""`python -m scripts figures SCAN OUT --weights ...`: masks, stages and fusion of a slice."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import Device, Limit, Out, Overwrite, Truth, limits_of, separated


def figures(
    scan: Annotated[Path, Argument(help="NIfTI, NRRD or MetaImage scan, or a PNG or JPG slice.")],
    out: Out,
    weights: Annotated[list[str], Option(help="Weights with their metadata; may be repeated, or separated by commas.")],
    truth: Truth = None,
    slice: Annotated[int | None, Option(help="Axial slice, from 1 at the feet; default: the most affected.")] = None,
    device: Device = None,
    limit: Limit = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw the masks of several networks, and the stages of ResUNet.

    Writes comparison.png, and for a ResUNet stages.png (its supervised stages) and fusion.png (its
    attention fusion).
    """
    from ..research.figures import figure_files

    with limits_of(limit):
        print(figure_files(scan, out, separated(weights), truth, slice, device, overwrite))
