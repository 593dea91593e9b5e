"""What a layout is, what it yields, and the pairing that the layouts share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import UserError
from ...transforms.labels import CLASS_CODES
from .case import Case, ListName

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
        label_values: values that a label may hold.
        synthetic: whether these are phantoms, no patients.
    """

    training: list[Case] = field(default_factory=list)
    test: list[Case] = field(default_factory=list)
    unlabeled: list[Case] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    label_values: frozenset[int] = BINARY
    synthetic: bool = False

    def cases(self, name: ListName) -> list[Case]:
        """Give one of the three lists by its name."""
        return {"training": self.training, "test": self.test, "unlabeled": self.unlabeled}[name]


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


def listing_error(headline: str, lines: Sequence[str]) -> UserError:
    """One error that names every offender, a line each."""
    return UserError("\n  ".join([headline, *lines]))


def pair(
    images: Mapping[str, Path], partners: Mapping[str, Path], what: str, folder: Path, problems: list[str]
) -> list[str]:
    """Return names that are on both sides, sorted; add a line to `problems` for each other.

    Args:
        images: images by name.
        partners: labels or masks by the same names.
        what: what the partner is called in the lines ("label").
        folder: where the partner was looked for.
        problems: gets the lines.
    """
    for name in sorted(images.keys() - partners.keys()):
        problems.append(f"{images[name]}: no {what} '{name}' in {folder}")
    for name in sorted(partners.keys() - images.keys()):
        problems.append(f"{partners[name]}: {what} without an image '{name}'")
    return sorted(images.keys() & partners.keys())


def new_case(name: str, image: Path, patient: str | None, label: Path | None = None) -> Case:
    """A case without a fold."""
    case = Case(name=name, image=str(image), patient=patient, fold=None)
    if label is not None:
        case["label"] = str(label)
    return case
