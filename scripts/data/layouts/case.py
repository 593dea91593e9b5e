"""Cases and lists of cases: plain dictionaries for MONAI transforms and JSON."""

from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal, NotRequired, cast, get_args

from pydantic import AfterValidator, Field, with_config
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from ...schema import STRICT, passes
from ...transforms.hounsfield import parse_intensity

ListName = Literal["training", "test", "unlabeled"]
LIST_NAMES: tuple[ListName, ...] = get_args(ListName)

FileKey = Literal["image", "label", "lung", "classes", "prior", "finer", "second", "edge"]
FILE_KEYS: tuple[FileKey, ...] = get_args(FileKey)
MORE_LABELS: tuple[FileKey, ...] = ("finer", "second")
"""Further masks of infection, for training alone: an evaluation has one truth."""

Split = Literal["patient", "slice"]
SPLITS = get_args(Split)

DATALIST = "datalist.json"
"""The file in which `prepare` lists the cases of a data set."""


Text = Annotated[str, Field(min_length=1)]
Index = Annotated[int, Field(ge=0)]
Indices = Annotated[list[Index], Field(min_length=1)]
Scale = Annotated[int, Field(ge=1)]


def _each_once(indices: list[int]) -> list[int]:
    if len(set(indices)) < len(indices):
        raise ValueError("every index once")
    return indices


Slices = Annotated[Indices, AfterValidator(_each_once), Field(json_schema_extra={"uniqueItems": True})]


@with_config(STRICT)
class CaseFiles(TypedDict):
    """What a case consists of, see `Case`."""

    image: Text
    label: NotRequired[Text]
    label_codes: NotRequired[Indices]
    label_scale: NotRequired[Scale]
    pseudo: NotRequired[bool]
    intensity: NotRequired[Annotated[str, passes(parse_intensity)]]
    slices: NotRequired[Slices]
    classes: NotRequired[Text]
    prior: NotRequired[Text]
    prior_codes: NotRequired[Indices]
    prior_scale: NotRequired[Scale]
    lung: NotRequired[Text]
    finer: NotRequired[Text]
    second: NotRequired[Text]
    edge: NotRequired[Text]
    drawn: NotRequired[bool]
    lesion_free: NotRequired[bool]


class Case(CaseFiles):
    """One volume (NIfTI), a part of its slices, or one slice as a picture (PNG, JPG, BMP).

    Attributes:
        name: unique among all cases of a list; the name of its folder and of its row in tables.
        image: path of the CT.
        patient: patient that the image comes from; None when the data set does not tell.
        fold: cross-validation fold from 0; None: never in validation.
        label: path of the infection mask; absent when unlabelled.
        label_codes: label values that mean infection; absent: every value above 0.
        label_scale: the label holds probabilities: the stored value that stands for 1; absent: it
            holds codes.
        pseudo: whether the label was made by a network: such a case trains and is in no fold;
            absent: no.
        intensity: "hu", or "window:LO,HI" where the full scale of the stored values (0..255 or
            0..1) stands for LO..HI HU; absent: to be found from the values.
        slices: indices along the stored third axis that this case covers; absent: all of them.
        classes: path of a multi-class label: 0 background, 1 ground glass, 2 consolidation.
        prior: path of the infection map that comes with `classes`.
        prior_codes: as `label_codes`, for the prior.
        prior_scale: as `label_scale`, for the prior.
        lung: path of a lung mask: every value above 0, and 255 where it is unknown.
        finer: path of a mask with finer borders than `label`: 0, 1, and 255 where it is unknown.
        second: path of another annotator's mask; every value above 0 means infection.
        edge: path of the published edge of the infection; every value above 0 is edge.
        drawn: whether a test case was drawn from among the training cases; in a split by slice the
            same patient may be in both.
        lesion_free: the scan is known to hold no infection, so that it needs no label.
    """

    name: str
    patient: str | None
    fold: int | None


class Datalist(TypedDict):
    """The content of datalist.json.

    Attributes:
        name, layout: those of the data set; of several joined by "+".
        test_name: that of the data sets that the test cases come from; empty: the same as `name`.
        split: "patient": no patient in two folds; "slice": slices of one scan in several folds (the
            paper's).
        folds, seed: number of folds, 0 without any, and the seed of folds and parts.
        synthetic: whether phantoms are among the cases.
        warnings: what every figure measured with this split has to say.
        training: labelled cases, with folds.
        test: labelled cases kept apart by the data set itself, or drawn.
        unlabeled: cases without a label.
    """

    name: str
    layout: str
    test_name: str
    split: str
    folds: int
    seed: int
    synthetic: bool
    warnings: list[str]
    training: list[Case]
    test: list[Case]
    unlabeled: list[Case]


def new_datalist(**known: Any) -> Datalist:
    """Return a list without cases, but for what is known."""
    empty = {"name": "", "layout": "", "test_name": "", "split": "patient", "folds": 0, "seed": 0, "synthetic": False}
    empty["warnings"] = []
    return cast(Datalist, {**empty, **{name: [] for name in LIST_NAMES}, **known})


def all_cases(datalist: Datalist) -> list[Case]:
    """Return the cases of all lists."""
    return [case for name in LIST_NAMES for case in datalist[name]]


def with_paths(case: Case, path: Callable[[FileKey, str], str]) -> Case:
    """Return a case whose files lie elsewhere: `path` gives the new path of a key's file."""
    return cast(Case, {**case, **{key: path(key, case[key]) for key in FILE_KEYS if key in case}})


def without_files(case: Case, keys: Collection[FileKey]) -> Case:
    """Return a case without some of its files."""
    return cast(Case, {key: value for key, value in case.items() if key not in keys})


def all_with_paths(datalist: Datalist, path: Callable[[FileKey, str], str]) -> Datalist:
    """Return the list with all files elsewhere, see `with_paths`."""
    return cast(Datalist, {**datalist, **{name: [with_paths(c, path) for c in datalist[name]] for name in LIST_NAMES}})
