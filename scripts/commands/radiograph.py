"""`python -m scripts radiograph SCAN MASK OUT`: a digitally reconstructed radiograph (DRR)."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from .options import Limit, Out, Overwrite, limits_of


def radiograph(
    scan: Annotated[Path, Argument(help="NIfTI, NRRD or MetaImage scan in HU, or a folder of them.")],
    mask: Annotated[Path, Argument(help="Mask on the scan's grid, lesions above 0, or a folder of equal names.")],
    out: Out,
    method: Annotated[
        Literal["attenuation", "sum"],
        Option(help="Line integrals of the attenuation, or CT2Xray's sum of grey values."),
    ] = "attenuation",
    limit: Limit = None,
    overwrite: Overwrite = False,
) -> None:
    """Project a CT and its lesions to a frontal radiograph (DRR).

    For research on X-rays. Writes radiograph.png, lesion.png and lesion_tenths_of_mm.png, the
    depth of lesion along each ray. Of folders it makes a data set to train on: images/, labels/,
    depths/, datalist.json and manifest.json.
    """
    from ..research.radiograph import radiograph_files
    from ..research.radiograph_pairs import radiograph_pairs

    make = radiograph_pairs if scan.is_dir() and mask.is_dir() else radiograph_files
    with limits_of(limit):
        print(make(scan, mask, out, method, overwrite))
