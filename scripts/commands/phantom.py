"""`python -m scripts phantom OUT`: a synthetic data set to try everything on."""

from __future__ import annotations

from ..data.phantom.dataset import NOTE, write_phantom_dataset


def phantom(
    out: str, cases: int = 10, seed: int = 0, size: int = 160, slices: int = 32, overwrite: bool = False
) -> None:
    """Writes synthetic chest CT with infection and lung masks, in the layout of Zenodo 3757476.

    Args:
        out: folder to write; new or empty unless --overwrite.
        cases: number of cases, each another patient; one of every five is healthy.
        seed: the same seed gives the same files.
        size: columns of a slice, 48 to 512.
        slices: axial slices of a case, 8 to 400.
        overwrite: replaces the files of an earlier phantom data set in OUT and nothing else.
    """
    written = write_phantom_dataset(str(out), cases, seed, size, slices, overwrite, progress=True)
    for case in written:
        shape, spacing = " x ".join(map(str, case.shape)), " x ".join(f"{mm:g}" for mm in case.spacing)
        state = "infected" if case.infected else "healthy"
        tilt = f", tilted {case.tilt:g} degrees" if case.tilt else ""
        print(f"{case.name}  {shape} voxels  {spacing} mm  {case.orientation}{tilt}  {state}")
    print(f"{len(written)} cases in {out}. {NOTE}")
