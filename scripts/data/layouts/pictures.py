"""Data sets of 2-D images: COVID-SemiSeg (2020), the prepared trees of Hu et al. and Xu et al."""

from collections.abc import Mapping
from pathlib import Path

from ...io.images import PICTURE_SUFFIXES
from .base import PICTURE_BINARY, Findings, Layout, has_folders, new_case, paired_cases
from .case import Case, FileKey
from .files import list_files
from .patients import patient_of_slice

_TRAIN = Path("TrainingSet/LungInfection-Train/Doctor-label")
_PSEUDO = Path("TrainingSet/LungInfection-Train/Pseudo-label")
_TRAIN_CLASSES = Path("TrainingSet/MultiClassInfection-Train")
_TEST = Path("TestingSet/LungInfection-Test")
_TEST_CLASSES = Path("TestingSet/MultiClassInfection-Test")


def _labelled(root: Path, images: str, labels: str, edges: str | None, prefix: str, problems: list[str]) -> list[Case]:
    """Pair images of two folders by name, and edges of a third where it is there."""
    cases = paired_cases(root / images, root / labels, PICTURE_SUFFIXES, problems, prefix, patient_of_slice)
    if edges:
        _attach(cases, {"edge": (root / edges, "edge")}, problems)
    return cases


def _attach(cases: list[Case], folders: Mapping[FileKey, tuple[Path, str]], problems: list[str]) -> None:
    """Add further files of the same picture; a folder with any has to hold one of each case.

    By the key of the file in a case, `folders` says where such files lie and what they are.
    """
    found = {key: list_files(folder, PICTURE_SUFFIXES, problems) for key, (folder, _) in folders.items()}
    for case in cases:
        stem = Path(case["image"]).stem
        for key, (folder, what) in folders.items():
            if stem in found[key]:
                case[key] = str(found[key][stem])
            elif found[key]:
                problems.append(f"{case['image']}: no {what} '{stem}' in {folder}")


def _matches_semiseg(root: Path) -> bool:
    return any((root / part / "Imgs").is_dir() for part in (_TRAIN, _TEST, _PSEUDO))


def _collect_semiseg(root: Path) -> Findings:
    found = Findings(label_values=PICTURE_BINARY)
    found.training = _labelled(root / _TRAIN, "Imgs", "GT", "Edge", "semiseg_train_", found.problems)
    found.test = _labelled(root / _TEST, "Imgs", "GT", "Edge", "semiseg_test_", found.problems)
    for cases, folder in ((found.training, root / _TRAIN_CLASSES), (found.test, root / _TEST_CLASSES)):
        classes, priors = (folder / "GT", "multi-class label"), (folder / "Prior", "prior")
        _attach(cases, {"classes": classes, "prior": priors}, found.problems)
    # Pseudo-label/GT, if there, was made by a network: a label only for `covid_semiseg_pseudo`
    labelled = {Path(case["image"]).stem for case in found.training}  # a full folder holds these again
    for stem, path in list_files(root / _PSEUDO / "Imgs", PICTURE_SUFFIXES, found.problems).items():
        if stem not in labelled:
            found.unlabeled.append(new_case(stem, path, patient_of_slice(stem)))
    return found


def _matches_pseudo(root: Path) -> bool:
    return root.name == _PSEUDO.name and has_folders("Imgs", "GT")(root)


def _collect_pseudo(root: Path) -> Findings:
    """The published pseudo labels: soft maps of a network, for training alone.

    A full folder holds the labelled images too, whose labels `covid_semiseg` has; they are left
    out here.
    """
    found = Findings()
    labelled = list_files(root.parent / _TRAIN.name / "Imgs", PICTURE_SUFFIXES, found.problems)
    for case in _labelled(root, "Imgs", "GT", "Edge", "semiseg_pseudo_", found.problems):
        if Path(case["image"]).stem not in labelled:
            found.training.append(Case(**{**case, "pseudo": True, "label_scale": 255}))
    count = len(found.training)
    found.warnings.append(f"{count} labels were made by a network of the data set's authors, for training alone")
    return found


def _collect_paper(root: Path) -> Findings:
    """The tree of the official code, whose `val` is its test set as well: here `test` only."""
    found = Findings(label_values=PICTURE_BINARY)
    found.training = _labelled(root / "train", "image", "mask", "mask_", "train_", found.problems)
    found.test = _labelled(root / "val", "image", "mask", "mask_", "val_", found.problems)
    return found


def _collect_cares(root: Path) -> Findings:
    """The tree of CARes-UNet's code; masks that its generator wrote (`Pos-Mask`) are no labels."""
    found = Findings(label_values=PICTURE_BINARY)
    found.training = _labelled(root, "Train-Image", "Train-Mask", None, "train_", found.problems)
    found.test = _labelled(root, "Test-Image", "Test-Mask", None, "test_", found.problems)
    for stem, path in list_files(root / "Unlabeled", PICTURE_SUFFIXES, found.problems).items():
        found.unlabeled.append(new_case(f"unlabeled_{stem}", path, patient_of_slice(stem)))
    return found


SEMISEG = Layout(
    "covid_semiseg",
    f"{_TRAIN}/Imgs with GT, or {_TEST}/Imgs with GT, or {_PSEUDO}/Imgs",
    _matches_semiseg,
    _collect_semiseg,
)
PSEUDO = Layout(
    "covid_semiseg_pseudo", f"{_PSEUDO.name}/Imgs with GT, as SOURCE of its own", _matches_pseudo, _collect_pseudo
)
PAPER = Layout(
    "resunet_png", "train/ and val/, each image/ with mask/", has_folders("train/image", "train/mask"), _collect_paper
)
CARES = Layout(
    "cares_png",
    "Train-Image/ with Train-Mask/, Test-Image/ with Test-Mask/, Unlabeled/",
    has_folders("Train-Image", "Train-Mask"),
    _collect_cares,
)
