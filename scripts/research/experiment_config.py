"""What an experiment compares, as configs/experiments/NAME.yaml says it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import yaml

from ..errors import UserError
from ..version import BUNDLE

Protocol = Literal["within", "test", "cross"]
"""What a row is evaluated on: the validation fold of each training; the test cases of the data set;
the same, which come from other data sets than the training."""

EXPERIMENTS = BUNDLE / "configs/experiments"
BUDGET = "configs/presets/experiment_cpu.yaml"


@dataclass(frozen=True)
class Variant:
    """One row of a table: overlays on train.yaml, ids and values beside them.

    `published` holds figures of the source, in percent: a measure and, as MEASURE_sd, its spread;
    of an experiment with classes by class.
    """

    name: str
    files: list[str]
    settings: dict[str, Any]
    published: dict[str, Any]

    @property
    def folder(self) -> str:
        """Return the name as that of a folder."""
        return re.sub(r"\W+", "_", self.name.replace("*", "_star").replace("++", "_plus_plus")).strip("_")


@dataclass(frozen=True)
class Experiment:
    """What a table compares.

    Attributes:
        source: where the published figures stand; empty where there are none.
        protocol: how they were measured.
        variants: its rows, the first one is what the others are compared with.
        files: overlays that every training has.
        budget: overlay that sets width, size and schedule unless the user names another.
        left_out: rows of the source that are not here, and why.
        evaluation: overlays on the evaluation.
        classes: what there is a table for, where the evaluation is one by classes.
        split: that of the published figures, "slice", where it is known and there is one alike.
    """

    name: str
    title: str
    source: str
    protocol: str
    variants: list[Variant]
    files: list[str]
    budget: str
    left_out: dict[str, str]
    evaluation: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    split: str = ""

    def of_class(self, name: str) -> "Experiment":
        """Return what the table of one class compares."""
        rows = [replace(row, published=row.published.get(name, {})) for row in self.variants]
        return replace(self, title=f"{self.title}: {name.replace('_', ' ')}", variants=rows)


def experiment_names() -> list[str]:
    """Return the names of all experiments, sorted."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))


def read_experiment(name: str, chosen: Sequence[str] = ()) -> Experiment:
    """Read an experiment of configs/experiments.

    Its rows are its own "variants" and those that "rows_of" takes over from other experiments, all
    of them where that names none; "published" replaces figures of these by row. Its "settings" hold
    for all rows. Without `chosen` names it has all of its variants.

    Raises:
        UserError: for a name that there is not.
    """
    if name not in experiment_names():
        raise UserError(f"experiment is {name!r}; expected: {', '.join(experiment_names())}")
    content = yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8"))
    others = [read_experiment(other, rows) for other, rows in content.get("rows_of", {}).items()]
    variants = [replace(row, files=[*other.files, *row.files]) for other in others for row in other.variants]
    figures = content.get("published", {})
    if strange := set(figures) - {row.name for row in variants}:
        raise ValueError(f"{name}: published figures of {', '.join(sorted(strange))}, which are no rows")
    variants = [replace(row, published=figures.get(row.name, {} if figures else row.published)) for row in variants]
    variants += [
        Variant(row, one.get("files", []), one.get("settings", {}), one.get("published", {}))
        for row, one in content.get("variants", {}).items()
    ]
    shared = content.get("settings", {})
    variants = [replace(variant, settings={**shared, **variant.settings}) for variant in variants]
    if len({variant.folder for variant in variants}) < len(variants):
        raise ValueError(f"{name}: variants share a folder")
    unknown = set(chosen) - {variant.name for variant in variants}
    if unknown:
        names = "; ".join(variant.name for variant in variants)
        raise UserError(f"variants {', '.join(sorted(unknown))}; expected, separated by commas: {names}")
    kept = [variant for variant in variants if not chosen or variant.name in chosen]
    title, source, protocol = (str(content.get(key, "")) for key in ("title", "source", "protocol"))
    budget, left_out = content.get("budget", BUDGET), content.get("left_out", {})
    further = content.get("evaluation", []), content.get("classes", []), content.get("split", "")
    return Experiment(name, title, source, protocol, kept, content.get("files", []), budget, left_out, *further)
