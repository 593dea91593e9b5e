"""Volumes: MosMedData, UESTC-COVID-19, COVID-19-20 and MedSeg (part 1: a stack of 100 slices)."""

from pathlib import Path

from ...errors import UserError
from ...io.reading import read_grid
from .base import Findings, Layout, has_folders, new_case, pair, paired_cases
from .case import Case
from .files import VOLUMES, list_files
from .patients import patient_of_scan

_MASK, _CT, _SEG = "_mask", "_ct", "_seg"
_UESTC_WINDOW = "window:-1400,100"  # stored as 0..1 by the authors
_CHALLENGE, _TEST_SET = "COVID-19-20_v2", "COVID-19-20_TestSet"
_MEDSEG_VALUES = frozenset({0, 1, 2, 3})  # 1 ground glass, 2 consolidation, 3 pleural effusion
_STACK, _STACK_LABEL, _STACK_LUNGS, _UNLABELED = "tr_im", "tr_mask", "tr_lungmasks_updated", "val_im"
_VOLUME = "medseg_rp_"
_IMAGES, _LABELS, _LUNGS = "rp_im", "rp_msk", "rp_lung_msk"


def _without(files: dict[str, Path], ending: str) -> dict[str, Path]:
    """The files whose names end so, by the rest of the name."""
    return {stem.removesuffix(ending): path for stem, path in files.items() if stem.endswith(ending)}


def _collect_mosmed(root: Path) -> Findings:
    found = Findings()
    studies: dict[str, Path] = {}
    for folder in sorted(path for path in (root / "studies").iterdir() if path.is_dir()):
        for stem, path in list_files(folder, VOLUMES, found.problems).items():
            if stem in studies:
                found.problems.append(f"{path}: duplicate case name '{stem}', {studies[stem]} has it as well")
            studies.setdefault(stem, path)
    masks = _without(list_files(root / "masks", VOLUMES, found.problems), _MASK)
    masked = {stem: path for stem, path in studies.items() if stem in masks}
    for stem in pair(masked, masks, "mask", root / "masks", found.problems):
        found.training.append(new_case(stem, studies[stem], patient_of_scan(stem), masks[stem]))
    found.unlabeled = [
        new_case(stem, path, patient_of_scan(stem)) for stem, path in studies.items() if stem not in masks
    ]
    return found


def _is_uestc_part(folder: Path) -> bool:
    return folder.name in ("part1", "part2") and has_folders("image", "label")(folder)


def _matches_uestc(root: Path) -> bool:
    return _is_uestc_part(root) or any(_is_uestc_part(root / part) for part in ("part1", "part2"))


def _uestc_cases(part: Path, problems: list[str]) -> list[Case]:
    cases = paired_cases(part / "image", part / "label", VOLUMES, problems, f"uestc_{part.name}_")
    for case in cases:
        case["patient"], case["intensity"] = case["name"], _UESTC_WINDOW
    return cases


def _collect_uestc(root: Path) -> Findings:
    """Part 2 (expert labels) trains; part 1 (non-expert) only when it is the source by itself."""
    found = Findings()
    non_expert = "labels of UESTC part1 are by non-experts"
    if _is_uestc_part(root) or not _is_uestc_part(root / "part2"):
        part = root if _is_uestc_part(root) else root / "part1"
        found.training = _uestc_cases(part, found.problems)
        found.warnings += [non_expert] if part.name == "part1" else []
        return found
    found.training = _uestc_cases(root / "part2", found.problems)
    if _is_uestc_part(root / "part1"):
        found.unlabeled = _uestc_cases(root / "part1", found.problems)
        for case in found.unlabeled:
            del case["label"]
        found.warnings.append(f"{non_expert}: its volumes are listed as unlabeled; name part1 as a source to use them")
    return found


def _challenge_folders(root: Path) -> tuple[Path, Path]:
    """The training release and the test set, from the folder of the release or the one above."""
    inside = (root / _CHALLENGE).is_dir()
    return (root / _CHALLENGE if inside else root), root / _TEST_SET


def _matches_challenge(root: Path) -> bool:
    release, _ = _challenge_folders(root)
    return any(
        path.name.lower().endswith((f"{_CT}.nii.gz", f"{_CT}.nii"))
        for folder in (release / "Train", release / "Validation")
        if folder.is_dir()
        for path in folder.iterdir()
    )


def _collect_challenge(root: Path) -> Findings:
    found = Findings()
    release, test_set = _challenge_folders(root)
    files = list_files(release / "Train", VOLUMES, found.problems)
    images, labels = _without(files, _CT), _without(files, _SEG)
    for stem in pair(images, labels, "label", release / "Train", found.problems):
        found.training.append(new_case(stem, images[stem], patient_of_scan(stem), labels[stem]))
    for folder in (release / "Validation", test_set):
        for stem, path in _without(list_files(folder, VOLUMES, found.problems), _CT).items():
            found.unlabeled.append(new_case(stem, path, patient_of_scan(stem)))
    return found


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
    found = Findings(label_values=_MEDSEG_VALUES)
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


def _collect_part2(root: Path) -> Findings:
    found = Findings(label_values=_MEDSEG_VALUES)
    images, labels, lungs = (root / name for name in (_IMAGES, _LABELS, _LUNGS))
    found.training = paired_cases(images, labels, VOLUMES, found.problems, _VOLUME, lungs=lungs)
    for case in found.training:
        case["patient"] = case["name"]
    return found


MOSMED = Layout(
    "mosmeddata", "studies/CT-*/ with masks/*_mask.nii.gz", has_folders("studies", "masks"), _collect_mosmed
)
UESTC = Layout("uestc_covid_19", "part2/ and part1/, each image/ with label/", _matches_uestc, _collect_uestc)
COVID_19_20 = Layout(
    "covid_19_20_v2",
    f"{_CHALLENGE}/Train/*_ct.nii.gz with *_seg.nii.gz, Validation/, and {_TEST_SET}/ beside it",
    _matches_challenge,
    _collect_challenge,
)
PART1 = Layout("medseg_part1", f"{_STACK}.nii.gz with {_STACK_LABEL}.nii.gz", _matches_part1, _collect_part1)
PART2 = Layout(
    "medseg_part2", f"{_IMAGES}/ with {_LABELS}/, equal file names", has_folders(_IMAGES, _LABELS), _collect_part2
)
