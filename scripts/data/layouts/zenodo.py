"""COVID-19-CT-Seg (Ma et al. 2021): Zenodo 3757476 and its Kaggle copy, 20 volumes."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pandas as pd

from ...errors import UserError
from ...io.reading import read_label, scan_name
from .base import BINARY, Findings, Layout, has_folders, new_case, paired_cases
from .case import Case, FileKey
from .files import VOLUMES, file_at, list_files
from .patients import patient_of_scan, zenodo_name

_IMAGES = "COVID-19-CT-Seg_20cases"
_LABELS = "Infection_Mask"
_COMBINED = "Lung_and_Infection_Mask"
_LUNGS = "Lung_Mask"
_SECOND = "MedSeg_GGO_Consolidation"  # another radiologist's masks of some of the scans
_FINER = "Infection_Mask_256"
_FINER_LUNGS = "Lung_Mask_256"
_COMBINED_VALUES = frozenset({0, 1, 2, 3})  # 1, 2: left and right lung, 3: infection
_INFECTION_IN_COMBINED = 3
_USUAL_WINDOW = (-1350, 150)
_WINDOWS = {"radiopaedia_7_85703_0": (-1400, 171)}
"""HU that 0 and 255 stand for in `radiopaedia_*`, which were windowed before they were published.
They were recovered from air, fat and muscle of three volumes, to 20 to 40 HU; the others are taken
for the usual one. The window [-1250, 250], by which these volumes are often read, puts lung about
100 HU too high."""
_PHANTOM = "phantom.json"  # beside what `python -m scripts phantom` writes in this layout
_KAGGLE_COLUMNS = ("ct_scan", "lung_mask", "infection_mask", "lung_and_infection_mask")


def _complete(case: Case, combined: bool) -> Case:
    """Give a case its name in Zenodo 3757476, the infection values and the window of the scan."""
    case["name"] = zenodo_name(case["name"])
    if combined:
        case["label_codes"] = [_INFECTION_IN_COMBINED]
    if case["name"].startswith("coronacases_"):
        case["intensity"] = "hu"
    elif case["name"].startswith("radiopaedia_"):
        low, high = _WINDOWS.get(case["name"], _USUAL_WINDOW)
        case["intensity"] = "hu" if _below_zero(Path(case["image"])) else f"window:{low},{high}"
    return case


def _below_zero(image: Path) -> bool:
    """Whether a volume holds HU: some copies of the windowed volumes were brought back to them."""
    try:
        return bool(read_label(image).min() < 0)
    except UserError:
        return False  # the checks say what is wrong with the file


def _unpacked(root: Path, name: str) -> Path:
    """Return the folder `name`, or the one of that name inside it, as some archives unzip."""
    inner = root / name / name
    return inner if inner.is_dir() else root / name


def _matches_zenodo(root: Path) -> bool:
    return (root / _IMAGES).is_dir() and any((root / name).is_dir() for name in (_LABELS, _COMBINED))


def _collect_zenodo(root: Path) -> Findings:
    combined = not (root / _LABELS).is_dir()
    found = Findings(label_values=_COMBINED_VALUES if combined else BINARY)
    if (root / _PHANTOM).is_file():
        found.synthetic = True
        found.warnings.append("synthetic phantoms: figures say nothing about patients")
    images, labels, lungs = (_unpacked(root, name) for name in (_IMAGES, _COMBINED if combined else _LABELS, _LUNGS))
    found.training = paired_cases(images, labels, VOLUMES, found.problems, lungs=lungs)
    seconds = {zenodo_name(stem): path for stem, path in list_files(root / _SECOND, VOLUMES, found.problems).items()}
    for case in found.training:
        _complete(case, combined)
        if case["name"] in seconds:
            case["second"] = case["classes"] = str(seconds[case["name"]])
    return found


def _collect_finer(root: Path) -> Findings:
    found = Findings()
    folders: dict[FileKey, str] = {"finer": _FINER, "lung": _FINER_LUNGS}
    for key, folder in folders.items():
        files = list_files(root / folder, VOLUMES, found.problems)
        found.partners |= {(zenodo_name(stem), key): path for stem, path in files.items()}
    return found


def _matches_kaggle(root: Path) -> bool:
    return (root / "metadata.csv").is_file() and (root / "ct_scans").is_dir()


def _kaggle_file(root: Path, cell: object) -> Path | None:
    """Return the file that a cell such as ../input/ct_scans/x.nii names; None if empty."""
    if not isinstance(cell, str) or not cell.strip():
        return None
    return file_at(root.joinpath(*PurePosixPath(cell.strip()).parts[-2:]))


def _kaggle_row(root: Path, row: Mapping[str, object], problems: list[str]) -> Case | None:
    files = {column: _kaggle_file(root, row.get(column)) for column in _KAGGLE_COLUMNS}
    image, lung = files["ct_scan"], files["lung_mask"]
    label = files["infection_mask"] or files["lung_and_infection_mask"]
    missing = [path for path in (image, label, lung) if path is not None and not path.is_file()]
    problems += [f"{path}: named in metadata.csv, not there" for path in missing]
    if image is None or label is None:
        problems.append(f"{root / 'metadata.csv'}: no image or no label in the row {dict(row)}")
    if image is None or label is None or missing:
        return None
    stem = scan_name(image)
    case = new_case(stem, image, patient_of_scan(stem), label)
    if lung is not None:
        case["lung"] = str(lung)
    return _complete(case, combined=files["infection_mask"] is None)


def _collect_kaggle(root: Path) -> Findings:
    found = Findings(label_values=_COMBINED_VALUES)
    try:
        table = pd.read_csv(root / "metadata.csv")
    except ValueError as error:  # pandas' errors of parsing are ValueErrors
        found.problems.append(f"{root / 'metadata.csv'}: cannot be read ({error}); expected: a table")
        return found
    absent = {"ct_scan", "infection_mask"} - set(table.columns)
    if absent:
        expected = ", ".join(_KAGGLE_COLUMNS)
        found.problems.append(f"{root / 'metadata.csv'}: no column {sorted(absent)}; expected: {expected}")
        return found
    named: set[Path] = set()
    for row in table.to_dict("records"):
        case = _kaggle_row(root, {str(key): value for key, value in row.items()}, found.problems)
        named |= {path for column in _KAGGLE_COLUMNS if (path := _kaggle_file(root, row.get(column)))}
        if case is not None:
            found.training.append(case)
    on_disk = list_files(root / "ct_scans", VOLUMES, found.problems).values()
    found.problems += [f"{path}: not named in metadata.csv" for path in on_disk if path not in named]
    if all("label_codes" not in case for case in found.training):
        found.label_values = BINARY
    return found


ZENODO = Layout(
    "zenodo_3757476", f"{_IMAGES}/ with {_LABELS}/ or {_COMBINED}/, equal file names", _matches_zenodo, _collect_zenodo
)
FINER = Layout(
    "zenodo_3757476_finer",
    f"{_FINER}/, perhaps with {_FINER_LUNGS}/: masks of scans that lie in another SOURCE, 255 where unknown",
    has_folders(_FINER),
    _collect_finer,
)
KAGGLE = Layout(
    "kaggle_covid19_ct_scans",
    "metadata.csv with ct_scans/, infection_mask/, lung_mask/",
    _matches_kaggle,
    _collect_kaggle,
)
