"""Chests without infection: scans and pictures that need no label."""

from pathlib import Path

from ...io.images import PICTURE_SUFFIXES
from .base import Findings, Layout, new_case
from .case import Case
from .files import VOLUMES, list_files

_FOLDER, _VOLUMES, _SLICES = "negatives", "volumes", "slices"
_TUMOUR = "tumour"
"""What the name of a scan starts with that has no infection, yet consolidation beside a tumour."""
_BLOCK = 50
"""Pictures with neighbouring numbers that stand for one patient: few patients lie in two blocks."""


def _matches(root: Path) -> bool:
    return root.name == _FOLDER and any((root / name).is_dir() for name in (_VOLUMES, _SLICES))


def _collect(root: Path) -> Findings:
    found = Findings()
    for stem, path in list_files(root / _VOLUMES, VOLUMES, found.problems).items():
        case = _lesion_free(new_case(stem, path, stem))
        (found.test if stem.startswith(_TUMOUR) else found.training).append(case)
    pictures = list_files(root / _SLICES, PICTURE_SUFFIXES, found.problems)
    for index, (stem, path) in enumerate(pictures.items()):
        block = f"{_FOLDER}_{_SLICES}_{index // _BLOCK + 1:02d}"
        found.training.append(_lesion_free(new_case(f"{_FOLDER}_{stem}", path, block)))
    if pictures:
        text = f"blocks of {_BLOCK} neighbours stand for them, so neighbouring blocks may overlap"
        found.warnings.append(f"patients unknown of {len(pictures)} lesion-free pictures: {text}")
    if found.test:
        names = ", ".join(case["name"] for case in found.test)
        found.warnings.append(f"{names}: consolidation that is no infection; measured, never trained on")
    return found


def _lesion_free(case: Case) -> Case:
    return Case(**{**case, "lesion_free": True})


NEGATIVES = Layout(
    "negatives",
    f"a folder '{_FOLDER}' with {_VOLUMES}/ (scans) or {_SLICES}/ (images), chests without infection",
    _matches,
    _collect,
)
