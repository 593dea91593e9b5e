"""Data sets of 2-D images: COVID-SemiSeg (2020), the prepared trees of Hu et al. and Xu et al."""

from pathlib import Path

from ...io.images import PICTURE_SUFFIXES
from .base import PICTURE_BINARY, Findings, Layout, new_case, paired_cases
from .case import Case
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
    found = list_files(root / edges, PICTURE_SUFFIXES, problems) if edges else {}
    for case in cases if found else []:
        stem = Path(case["image"]).stem
        if stem in found:
            case["edge"] = str(found[stem])
        else:
            problems.append(f"{case['image']}: no edge '{stem}' in {root}/{edges}")
    return cases


def _attach_classes(cases: list[Case], root: Path, problems: list[str]) -> None:
    """Add the multi-class label and the prior of the same picture, where the tree has them."""
    classes = list_files(root / "GT", PICTURE_SUFFIXES, problems)
    priors = list_files(root / "Prior", PICTURE_SUFFIXES, problems)
    for case in cases:
        stem = Path(case["image"]).stem
        if stem in classes:
            case["classes"] = str(classes[stem])
        if stem in priors:
            case["prior"] = str(priors[stem])
        if classes and stem not in classes:
            problems.append(f"{case['image']}: no multi-class label '{stem}' in {root / 'GT'}")
        if priors and stem not in priors:
            problems.append(f"{case['image']}: no prior '{stem}' in {root / 'Prior'}")


def _matches_semiseg(root: Path) -> bool:
    return any((root / part / "Imgs").is_dir() for part in (_TRAIN, _TEST, _PSEUDO))


def _collect_semiseg(root: Path) -> Findings:
    found = Findings(label_values=PICTURE_BINARY)
    found.training = _labelled(root / _TRAIN, "Imgs", "GT", "Edge", "semiseg_train_", found.problems)
    found.test = _labelled(root / _TEST, "Imgs", "GT", "Edge", "semiseg_test_", found.problems)
    _attach_classes(found.training, root / _TRAIN_CLASSES, found.problems)
    _attach_classes(found.test, root / _TEST_CLASSES, found.problems)
    # Pseudo-label/GT, if there, was made by a network: a label only for `covid_semiseg_pseudo`
    labelled = {Path(case["image"]).stem for case in found.training}  # a full folder holds these again
    for stem, path in list_files(root / _PSEUDO / "Imgs", PICTURE_SUFFIXES, found.problems).items():
        if stem not in labelled:
            found.unlabeled.append(new_case(stem, path, patient_of_slice(stem)))
    return found


def _matches_pseudo(root: Path) -> bool:
    return root.name == _PSEUDO.name and (root / "Imgs").is_dir() and (root / "GT").is_dir()


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


def _matches_paper(root: Path) -> bool:
    return (root / "train" / "image").is_dir() and (root / "train" / "mask").is_dir()


def _collect_paper(root: Path) -> Findings:
    """The tree of the official code, whose `val` is its test set as well: here `test` only."""
    found = Findings(label_values=PICTURE_BINARY)
    found.training = _labelled(root / "train", "image", "mask", "mask_", "train_", found.problems)
    found.test = _labelled(root / "val", "image", "mask", "mask_", "val_", found.problems)
    return found


def _matches_cares(root: Path) -> bool:
    return (root / "Train-Image").is_dir() and (root / "Train-Mask").is_dir()


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
PAPER = Layout("resunet_png", "train/ and val/, each image/ with mask/", _matches_paper, _collect_paper)
CARES = Layout(
    "cares_png",
    "Train-Image/ with Train-Mask/, Test-Image/ with Test-Mask/, Unlabeled/",
    _matches_cares,
    _collect_cares,
)
