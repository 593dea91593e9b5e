"""`python -m scripts radiograph SCAN MASK OUT`: a digitally reconstructed radiograph (DRR)."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from .options import Out, Overwrite


def radiograph(
    scan: Annotated[Path, Argument(help="NIfTI, NRRD or MetaImage scan in HU.")],
    mask: Annotated[Path, Argument(help="Mask on the scan's grid, lesions above 0.")],
    out: Out,
    method: Annotated[
        Literal["attenuation", "sum"],
        Option(help="Line integrals of the attenuation, or CT2Xray's sum of grey values."),
    ] = "attenuation",
    overwrite: Overwrite = False,
) -> None:
    """Project a CT and its lesions to a frontal radiograph (DRR).

    For research on X-rays. Writes radiograph.png, lesion.png and lesion_tenths_of_mm.png, the
    depth of lesion along each ray.
    """
    from ..research.radiograph import radiograph_files

    print(radiograph_files(scan, mask, out, method, overwrite))
