"""A data set of phantoms on disk, in the layout of Zenodo 3757476 as it unzips."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ...errors import UserError
from ...files import read_json, unfinished_folder, write_json
from .scan import Phantom, make_phantom

IMAGES, INFECTION, LUNGS = FOLDERS = ("COVID-19-CT-Seg_20cases", "Infection_Mask", "Lung_Mask")
RECORD = "phantom.json"
NOTE = "Synthetic phantoms for trying the software out; figures on them say nothing about patients."
_ORIENTATIONS = ("LPS", "RAS", "LPS", "LAS", "LPI")


@dataclass(frozen=True)
class PhantomCase:
    """How one case, which is one patient, is drawn (`make_phantom`) and stored.

    Attributes:
        orientation: where the stored axes point to, as in `nibabel.aff2axcodes`.
        tilt: turn of the scan about the left-right axis, in degrees.
    """

    name: str
    seed: tuple[int, int]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    orientation: str
    tilt: float
    infected: bool


def plan_case(number: int, seed: int = 0, size: int = 160, slices: int = 32) -> PhantomCase:
    """Plan case `number` (from 1); it does not depend on how many cases there are.

    Of every five cases one is healthy, one oblique, one not square; in the plane two are stored
    other than LPS, and one is stored from head to foot.
    """
    rng = np.random.default_rng((seed, number, 1))
    kind = number % 5
    columns = round(size * rng.uniform(0.9, 1.1))
    rows = round(columns * 0.85) if kind == 0 else columns
    depth = max(round(slices * rng.uniform(0.8, 1.2)), 1)
    in_plane = round(rng.uniform(345, 380) / columns, 4)
    return PhantomCase(
        name=f"phantom_{number:03d}",
        seed=(seed, number),
        shape=(columns, rows, depth),
        spacing=(in_plane, in_plane, round(rng.uniform(248, 268) / depth, 4)),
        orientation=_ORIENTATIONS[(number - 1) % len(_ORIENTATIONS)],
        tilt=round(float(rng.uniform(3, 7)), 2) if kind == 3 else 0.0,
        infected=kind != 4,
    )


def write_phantom_dataset(
    out: str | os.PathLike[str],
    cases: int = 10,
    seed: int = 0,
    size: int = 160,
    slices: int = 32,
    overwrite: bool = False,
    progress: bool = False,
) -> list[PhantomCase]:
    """Write phantoms in the layout of Zenodo 3757476.

    `OUT/phantom.json` says that they are synthetic and how each was made. The files are built
    beside OUT and moved there at the end, so that an interrupted run leaves no OUT.

    Args:
        out: folder to write; new or empty unless `overwrite`.
        cases: number of cases, each another patient.
        seed: the same seed gives the same files.
        size: columns of a slice; cases differ from it by up to a tenth.
        slices: axial slices; cases differ from it by up to a fifth.
        overwrite: replaces what an earlier call wrote to OUT and leaves everything else in it.
        progress: shows a progress bar.

    Raises:
        UserError: if OUT is in use, or a number is out of range.
    """
    _check_numbers(cases=(cases, 1, 999), seed=(seed, 0, 2**31))
    _check_numbers(size=(size, 48, 512), slices=(slices, 8, 400))
    target = Path(out)
    earlier = _earlier_files(target, overwrite)
    plans = [plan_case(number, seed, size, slices) for number in range(1, cases + 1)]
    files = _files([plan.name for plan in plans])
    if foreign := [str(target / file) for file in files if file not in earlier and (target / file).exists()]:
        raise UserError(f"{', '.join(foreign)}: not written by this command; expected: no other files")
    with unfinished_folder(target.parent) as folder:
        built = folder / target.name
        for case in tqdm(plans, desc="phantoms", unit="case", disable=not progress):
            _write_case(built, case)
        write_json(built / RECORD, {"synthetic": True, "note": NOTE, "cases": [asdict(case) for case in plans]})
        _move(built, target, earlier, files)
    return plans


def _check_numbers(**numbers: tuple[Any, int, int]) -> None:
    for name, (value, low, high) in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UserError(f"--{name} is {value!r}; expected: a whole number from {low} to {high}")


def _files(names: list[str]) -> list[Path]:
    """Return everything a call writes, relative to OUT, the record first."""
    return [Path(RECORD), *(Path(folder, f"{name}.nii.gz") for folder in FOLDERS for name in names)]


def _earlier_files(target: Path, overwrite: bool) -> list[Path]:
    """What an earlier call wrote to `target`, by its record; refuses a target that is not ours."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return []
    if not target.is_dir():
        raise UserError(f"{target}: a file; expected: a folder")
    if not overwrite:
        raise UserError(f"{target}: is not empty; expected: a new folder, or --overwrite for a phantom data set")
    try:
        record = read_json(target / RECORD)
        return _files([Path(case["name"]).name for case in record["cases"]])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{target}: no readable {RECORD}; expected: a phantom data set, or a new folder") from None


def _move(built: Path, target: Path, earlier: list[Path], files: list[Path]) -> None:
    if not earlier:
        if target.exists():
            target.rmdir()
        built.replace(target)
        return
    for file in earlier:
        (target / file).unlink(missing_ok=True)
    for file in files:  # the record first: should this be interrupted, --overwrite can clear the rest
        (target / file).parent.mkdir(exist_ok=True)
        (built / file).replace(target / file)


def _write_case(folder: Path, case: PhantomCase) -> None:
    phantom = make_phantom(case.seed, case.shape, case.spacing, case.infected)
    contents: dict[str, NDArray[Any]] = {IMAGES: phantom.image, INFECTION: phantom.infection, LUNGS: phantom.lungs}
    for name, array in contents.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        nib.save(_nifti(array, phantom, case), folder / name / f"{case.name}.nii.gz")


def _nifti(array: NDArray[Any], phantom: Phantom, case: PhantomCase) -> nib.Nifti1Image:
    """Return the array as its case is stored: axes, tilt, both transforms, mm."""
    turn = np.deg2rad(case.tilt)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    image = nib.Nifti1Image(array, tilt @ phantom.affine)
    stored, wanted = nib.orientations.axcodes2ornt("LPS"), nib.orientations.axcodes2ornt(case.orientation)
    image = image.as_reoriented(nib.orientations.ornt_transform(stored, wanted))
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"synthetic phantom, no patient"
    return image
