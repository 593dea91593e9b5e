"""MedSeg (medicalsegmentation.com/covid19): part 1, a stack of 100 slices; part 2, 9 volumes."""

from __future__ import annotations

from pathlib import Path

from ...errors import UserError
from ...io.reading import read_grid
from .base import Findings, Layout, new_case, paired_cases
from .case import Case
from .files import VOLUMES, list_files

_VALUES = frozenset({0, 1, 2, 3})  # 1 ground glass, 2 consolidation, 3 pleural effusion
_STACK, _STACK_LABEL, _STACK_LUNGS, _UNLABELED = "tr_im", "tr_mask", "tr_lungmasks_updated", "val_im"
_VOLUME = "medseg_rp_"
_IMAGES, _LABELS, _LUNGS = "rp_im", "rp_msk", "rp_lung_msk"


def _stack(name: str, image: Path, problems: list[str], label: Path | None = None) -> Case:
    """A case that names its slices: a stack of independent slices, in different folds."""
    case = new_case(name, image, None, label)
    try:
        case["slices"] = list(range(read_grid(image).slices))
    except UserError as error:
        problems.append(str(error))
    return case


def _matches_part1(root: Path) -> bool:
    return any((root / f"{_STACK}{suffix}").exists() for suffix in VOLUMES)


def _collect_part1(root: Path) -> Findings:
    found = Findings(label_values=_VALUES)
    files = list_files(root, VOLUMES, found.problems)
    if _STACK not in files or _STACK_LABEL not in files:
        found.problems += [f"{root / name}.nii.gz: not there" for name in (_STACK, _STACK_LABEL) if name not in files]
        return found
    case = _stack(f"medseg_{_STACK}", files[_STACK], found.problems, files[_STACK_LABEL])
    if _STACK_LUNGS in files:
        case["lung"] = str(files[_STACK_LUNGS])
    found.training.append(case)
    if _UNLABELED in files:
        found.unlabeled.append(_stack(f"medseg_{_UNLABELED}", files[_UNLABELED], found.problems))
    return found


def _matches_part2(root: Path) -> bool:
    return (root / _IMAGES).is_dir() and (root / _LABELS).is_dir()


def _collect_part2(root: Path) -> Findings:
    found = Findings(label_values=_VALUES)
    images, labels, lungs = (root / name for name in (_IMAGES, _LABELS, _LUNGS))
    found.training = paired_cases(images, labels, VOLUMES, found.problems, _VOLUME, lungs=lungs)
    for case in found.training:
        case["patient"] = case["name"]
    return found


PART1 = Layout("medseg_part1", f"{_STACK}.nii.gz with {_STACK_LABEL}.nii.gz", _matches_part1, _collect_part1)
PART2 = Layout("medseg_part2", f"{_IMAGES}/ with {_LABELS}/, equal file names", _matches_part2, _collect_part2)
