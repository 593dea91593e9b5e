"""`python -m scripts preview SCAN MASK OUT`: look at a mask on its scan."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from .options import Limit, Overwrite, Truth, limits_of


def preview(
    scan: Annotated[Path, Argument(help="NIfTI, NRRD or MetaImage scan in HU, or a PNG or JPG slice.")],
    mask: Annotated[Path, Argument(help="Mask on the scan's grid, infection above 0.")],
    out: Annotated[Path, Argument(help="Picture to write, a name that ends in .png.")],
    truth: Truth = None,
    limit: Limit = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw the outline of a mask on its scan.

    Shows the most affected slices, or evenly spaced ones without infection.
    """
    from ..report.preview import preview_files

    with limits_of(limit):
        print(preview_files(scan, mask, out, truth, overwrite))
