"""What a layout is, what it yields, and the pairing that the layouts share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...transforms.items import CLASS_CODES
from .case import Case, FileKey
from .files import list_files
from .patients import patient_of_scan, spelled_alike

BINARY = frozenset({0, 1})
PICTURE_BINARY = frozenset({0, 1, 255})
CLASSES = frozenset(CLASS_CODES)


@dataclass
class Findings:
    """What a layout found in a folder; nothing has been read yet but names.

    Attributes:
        training: labelled cases with absolute paths, without folds.
        test: labelled cases that the data set keeps apart.
        unlabeled: cases without a label.
        warnings: what users of the data have to know.
        problems: one line for each offender (missing partner, duplicate name).
        partners: files of cases that another source holds, by the case's name and their key.
        label_values: values that a label may hold.
        synthetic: whether these are phantoms, no patients.
    """

    training: list[Case] = field(default_factory=list)
    test: list[Case] = field(default_factory=list)
    unlabeled: list[Case] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    partners: dict[tuple[str, FileKey], Path] = field(default_factory=dict)
    label_values: frozenset[int] = BINARY
    synthetic: bool = False


@dataclass(frozen=True)
class Layout:
    """A data set as it lies on disk.

    Attributes:
        name: short name, as in datalist.json.
        tree: what the folder holds, for the error that lists the expected layouts.
        matches: whether a folder is the root of such a tree (looks at names only).
        collect: pairs the files under that root.
    """

    name: str
    tree: str
    matches: Callable[[Path], bool]
    collect: Callable[[Path], Findings]


def has_folders(*names: str) -> Callable[[Path], bool]:
    """Return what matches a folder that holds folders of all these names."""
    return lambda root: all((root / name).is_dir() for name in names)


def pair(
    images: Mapping[str, Path], partners: Mapping[str, Path], what: str, folder: Path, problems: list[str]
) -> list[str]:
    """Return names that are on both sides, sorted; add a line to `problems` for each other."""
    for name in sorted(images.keys() - partners.keys()):
        problems.append(f"{images[name]}: no {what} '{name}' in {folder}")
    for name in sorted(partners.keys() - images.keys()):
        problems.append(f"{partners[name]}: {what} without an image '{name}'")
    return sorted(images.keys() & partners.keys())


def new_case(name: str, image: Path, patient: str | None, label: Path | None = None) -> Case:
    """A case without a fold."""
    case = Case(name=name, image=str(image), patient=patient and spelled_alike(patient), fold=None)
    if label is not None:
        case["label"] = str(label)
    return case


def paired_cases(
    images: Path,
    labels: Path,
    suffixes: tuple[str, ...],
    problems: list[str],
    prefix: str = "",
    patient: Callable[[str], str | None] = patient_of_scan,
    lungs: Path | None = None,
) -> list[Case]:
    """Pair the files of two folders by their names, and lung masks of a third where it is there.

    `problems` gets one line for each file without its partner.
    """
    found, marked = list_files(images, suffixes, problems), list_files(labels, suffixes, problems)
    masks = list_files(lungs, suffixes, problems) if lungs else {}
    if lungs and masks:
        pair(found, masks, "lung mask", lungs, problems)
    cases = []
    for stem in pair(found, marked, "label", labels, problems):
        cases.append(new_case(f"{prefix}{stem}", found[stem], patient(stem), marked[stem]))
        if stem in masks:
            cases[-1]["lung"] = str(masks[stem])
    return cases
