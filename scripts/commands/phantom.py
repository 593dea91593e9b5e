"""`python -m scripts phantom OUT`: a synthetic data set to try everything on."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def phantom(
    out: Annotated[Path, Argument(help="Folder to write; new or empty unless --overwrite.")],
    cases: Annotated[int, Option(help="Number of cases, one patient each; one of every five is healthy.")] = 10,
    seed: Annotated[int, Option(help="Seed of the generator; the same seed gives the same files.")] = 0,
    size: Annotated[int, Option(help="Columns of a slice in pixels, 48 to 512.")] = 160,
    slices: Annotated[int, Option(help="Axial slices per case, 8 to 400.")] = 32,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an earlier phantom data set in OUT.")] = False,
) -> None:
    """Write synthetic chest CT with infection and lung masks.

    The files have the layout of COVID-19-CT-Seg (Zenodo 3757476).
    """
    from ..data.phantom.dataset import NOTE, write_phantom_dataset
    from ..messages import counted

    written = write_phantom_dataset(out, cases, seed, size, slices, overwrite, progress=True)
    for case in written:
        shape, spacing = " x ".join(map(str, case.shape)), " x ".join(f"{mm:g}" for mm in case.spacing)
        state = "infected" if case.infected else "healthy"
        tilt = f", tilted {case.tilt:g} degrees" if case.tilt else ""
        print(f"{case.name}  {shape} voxels  {spacing} mm  {case.orientation}{tilt}  {state}")
    print(f"{counted(len(written), 'case')} in {out}. {NOTE}")
