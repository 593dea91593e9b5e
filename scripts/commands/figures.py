"""`python -m scripts figures SCAN OUT --weights ...`: what networks make of a slice, and how ResUNet comes to it."""

from __future__ import annotations

from ..research.figures import figure_files


def figures(
    scan: str,
    out: str,
    weights: str,
    truth: str | None = None,
    slice: int | None = None,
    device: str | None = None,
    overwrite: bool = False,
) -> None:
    """Draws the masks of networks side by side and, for ResUNet, its supervised stages and its attention fusion.

    Args:
        scan: NIfTI, NRRD, MetaImage, or a picture.
        out: folder to write: comparison.png, stages.png, fusion.png.
        weights: weights with their metadata, several separated by commas.
        truth: reference mask on the scan's grid.
        slice: which axial slice, counted from 1 at the feet; the most affected one unless given.
        device: cpu, cuda, mps; the first that is there unless given.
        overwrite: replaces what an earlier call wrote.
    """
    print(figure_files(scan, out, weights.split(","), truth, slice, device, overwrite))
