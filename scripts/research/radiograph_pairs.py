"""A data set of radiographs: the projections of many CT scans with those of their lesions."""

from collections.abc import Iterator
from pathlib import Path

from ..data.layouts.base import new_case, pair
from ..data.layouts.case import DATALIST, Case, new_datalist
from ..data.layouts.files import VOLUMES, list_files
from ..data.layouts.patients import patient_of_scan
from ..data.splits import assign_folds, patients_of
from ..errors import UserError
from ..files import fit_name, read_json, results_folder, sha256, write_json
from ..version import bundle_version
from .radiograph import project_scan, save_radiograph

MANIFEST = "manifest.json"
FOLDERS = ("images", "labels", "depths")
MOST_FOLDS = 5


def radiograph_pairs(
    scans: Path, masks: Path, out: str | Path, method: str = "attenuation", overwrite: bool = False
) -> Path:
    """Project every scan of a folder and its mask of the same name; the result is a data set.

    The folder `out` receives `images/NAME.png`, `labels/NAME.png` (0, 255), `depths/NAME.png` (see
    `save_radiograph`), `datalist.json` with folds by patient, which trainings take, and
    `manifest.json`: method and version, and of each pair its files and the SHA-256 of scan and
    mask.

    Args:
        scans: folder of scans in HU.
        masks: folder of masks with equal names, lesions above 0.
        out: the folder; it appears when all is complete.
        method: see `project_scan`.
        overwrite: replaces what an earlier call wrote.

    Raises:
        UserError: for a scan or mask without its partner, as `project_scan`, or if the folder holds
            other files.
    """
    target, problems = Path(out), list[str]()
    names = {MANIFEST, DATALIST, *FOLDERS} if set(_files(target)) <= _written(target) else set()
    found, marked = list_files(scans, VOLUMES, problems), list_files(masks, VOLUMES, problems)
    paired = pair(found, marked, "mask", masks, problems)
    if problems:
        raise UserError(f"{len(problems)} problems in {scans}, {masks}:", *problems)
    if not paired:
        raise UserError(f"{scans}: no scan; expected: volumes ({', '.join(VOLUMES)})")
    with results_folder(target, names, overwrite) as folder:
        for part in FOLDERS:
            (folder / part).mkdir()
        rows, cases = [], []
        for name in paired:
            files = {part: f"{part}/{fit_name(name, '.png')}" for part in FOLDERS}
            picture, lesion, depth = (folder / file for file in files.values())
            save_radiograph(project_scan(found[name], marked[name], method), picture, lesion, depth, method)
            sources = {"scan": found[name], "mask": marked[name]}
            described = {key: {"file": one.name, "sha256": sha256(one)} for key, one in sources.items()}
            rows.append({"name": name, **described, **files})
            cases.append(new_case(name, Path(files["images"]), patient_of_scan(name), Path(files["labels"])))
        _write_datalist(folder, target.name, cases)
        depth_unit = "0.1 mm" if method == "attenuation" else "voxels"
        description = {"version": bundle_version(), "method": method, "depth_unit": depth_unit, "pairs": rows}
        write_json(folder / MANIFEST, description)
    return target


def _write_datalist(folder: Path, name: str, cases: list[Case]) -> None:
    """Write a list with up to five folds by patient."""
    folds = max(2, min(MOST_FOLDS, len(patients_of(cases))))
    training, warnings = assign_folds(cases, folds, seed=0)
    folds = 0 if all(case["fold"] is None for case in training) else folds
    warnings = ["projections of CT, no X-rays", *warnings]
    datalist = new_datalist(name=name, layout="radiographs", folds=folds, training=training, warnings=warnings)
    write_json(folder / DATALIST, datalist)


def _files(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _written(folder: Path) -> set[str]:
    """Return the files that an earlier call wrote into a folder, by its manifest."""
    try:
        rows = read_json(folder / MANIFEST)["pairs"]
        return {MANIFEST, DATALIST, *(row[part] for row in rows for part in FOLDERS)}
    except (OSError, ValueError, LookupError, TypeError):
        return set()
