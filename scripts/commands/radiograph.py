"""`python -m scripts radiograph SCAN MASK OUT`: a frontal radiograph out of a CT, with its lesions."""

from __future__ import annotations

from ..research.radiograph import radiograph_files


def radiograph(scan: str, mask: str, out: str, method: str = "attenuation", overwrite: bool = False) -> None:
    """Projects a CT and its lesion mask to a frontal radiograph pair, for research on X-rays.

    Args:
        scan: a scan in HU: NIfTI, NRRD, MetaImage.
        mask: lesions above 0, on the scan's grid.
        out: folder to write: radiograph.png, lesion.png and the depth of lesion that each ray
            passes.
        method: attenuation (line integrals, as X-rays are attenuated) or sum (CT2Xray's plain sum
            of grey values).
        overwrite: replaces what an earlier call wrote.
    """
    print(radiograph_files(scan, mask, out, method, overwrite))
