"""`python -m scripts preview SCAN MASK OUT`: look at a mask on its scan."""

from __future__ import annotations

from ..report.preview import preview_files


def preview(scan: str, mask: str, out: str, truth: str | None = None, overwrite: bool = False) -> None:
    """Draws the most affected slices of a scan with the outline of a mask into a PNG picture.

    Args:
        scan: NIfTI, NRRD or MetaImage scan in HU, or a picture.
        mask: mask on the scan's grid, infection above 0.
        out: the picture to write, a name that ends in .png.
        truth: reference mask, outlined in a second colour.
        overwrite: replaces OUT if it exists.
    """
    print(preview_files(scan, mask, out, truth, overwrite))
