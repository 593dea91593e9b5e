"""What checkpoint metadata may hold: names, bounds, and what has to fit together."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from ..anatomy.field_of_view import is_cropped
from ..networks.registry import is_data
from ..schema import OpenRecord, Record, passes
from ..settings import flag
from ..transforms.hounsfield import parse_intensity, window_bounds
from ..transforms.slice_input import DEFAULTS, LARGEST_SIZE, OWN_SIZE
from .tta import view_count

METADATA_FORMAT = 1
INFECTION_AND_LUNGS = ["infection", "lungs"]
"""What the maps of a network with two targets are, in their order."""
SMALLEST_INPUT = 4
"""Bounds of the edge of a network's input in pixels."""
LARGEST_ARGUMENT = 65_536
"""Largest number among the arguments of a network: a larger one is refused before it is built."""
LONGEST_ARGUMENT = 100
"""Most values of a list or a mapping among them."""


def _data(value: Any) -> Any:
    if not is_data(value):
        raise ValueError("a value, and no text that begins with $, @ or %")
    return value


def _buildable(value: Any) -> Any:
    """Refuse arguments by which a network would take all memory, or time without end."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    is_large = isinstance(value, int | float) and abs(value) > LARGEST_ARGUMENT
    if is_large or len(values) > LONGEST_ARGUMENT:
        raise ValueError(f"numbers up to {LARGEST_ARGUMENT}, lists of at most {LONGEST_ARGUMENT} values")
    for one in values:
        _buildable(one)
    return value


def _edge(size: int) -> int:
    if size < SMALLEST_INPUT and size != OWN_SIZE:
        raise ValueError(f"{SMALLEST_INPUT} or more, or {OWN_SIZE} for slices of their own size")
    return size


def _both(targets: list[str]) -> list[str]:
    if targets != INFECTION_AND_LUNGS:
        raise ValueError(f"{INFECTION_AND_LUNGS}, or null")
    return targets


Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Amount = Annotated[float, Field(ge=0)]
Percentage = Annotated[float, Field(ge=0, le=100)]
Text = Annotated[str, AfterValidator(_data)]
Switch = Annotated[Any, passes(flag), WithJsonSchema({"type": ["boolean", "string"]})]
"""Version 0.10.0 recorded a switch from its command line as text for networks for volumes."""
Window = Annotated[list[float], Field(min_length=2, max_length=2), passes(window_bounds)]
PatchSize = Annotated[list[Annotated[int, Field(ge=1, le=LARGEST_SIZE)]], Field(min_length=3, max_length=3)]
Arguments = Annotated[dict[str, Any], AfterValidator(_data), AfterValidator(_buildable)]


class Network(Record):
    """A registered network, or a class of `monai.networks.nets`, by name and arguments."""

    name: Text
    arguments: Arguments = Field(default_factory=dict)


class PreprocessingSteps(Record):
    """From HU to the network's input, see `Preprocessing`."""

    size: Annotated[int, Field(le=LARGEST_SIZE), AfterValidator(_edge)] = DEFAULTS["size"]
    window: Window = Field(default=list(DEFAULTS["window"]), validate_default=False)
    intensity: Annotated[Text, passes(parse_intensity)] = DEFAULTS["intensity"]
    z_score: Switch = DEFAULTS["z_score"]
    lung_only: Switch = DEFAULTS["lung_only"]
    field_of_view: Annotated[Text, passes(is_cropped)] = DEFAULTS["field_of_view"]
    patch_size: PatchSize | None = None
    prior: Text | None = None

    @model_validator(mode="after")
    def _patches_of_slices(self) -> Self:
        if self.size == OWN_SIZE and self.patch_size is None:
            raise ValueError(f"size {OWN_SIZE}, slices of their own size, with patch_size")
        return self


class OperatingPoint(Record):
    """How logits become a mask; what is left out has these defaults."""

    threshold: Annotated[float, Field(gt=0, lt=1, description="decision threshold of the probability")] = 0.5
    smallest_lesion_mm3: Annotated[Amount, Field(description="lesions of a scan below it are left out")] = 0.0
    test_time_flips: Annotated[
        Any,
        passes(view_count),
        WithJsonSchema({"enum": [True, False, 1, 2, 4]}),
        Field(description="whether, or over how many views, logits are averaged"),
    ] = False
    through_plane_mm: Annotated[
        float, Field(ge=0, le=20, description="sd of the Gaussian over neighbouring slices; 0: each alone")
    ] = 0.0
    least_slice_share: Annotated[
        float, Field(ge=0, le=1, description="fraction of a slice that must be marked for it to count")
    ] = 0.0
    least_views_agree_percent: Annotated[
        Percentage | None, Field(description="agreement of the views below which a border is unsure; null: unknown")
    ] = None


class Data(OpenRecord):
    """What the network was trained on."""

    name: str | None = None
    synthetic: bool = False
    fold: Annotated[Any, Field(description="left out of the training: a number, names of cases, or null")] = None


class Ancestor(OpenRecord):
    """Weights that a training started from, or that taught it, see `describe_parent`."""

    sha256: Sha256
    data: Data
    ancestors: Annotated[list[Data], Field(default_factory=list, description="data of the weights before these")]
    datasets: list[str]
    terms: str


class Training(OpenRecord):
    """The input of the training, where it has changed since."""

    size: Annotated[int, Field(ge=SMALLEST_INPUT, le=LARGEST_SIZE)]


class LesionFree(Record):
    """What is marked on volumes without infection, see `describe_marked`."""

    volumes: Annotated[int, Field(ge=0)]
    percent_of_lungs: list[Amount]
    ml: list[Amount]


class ReliabilityBin(Record):
    """Voxels of similar probability, see `reliability`."""

    probability: Annotated[float, Field(ge=0, le=1, description="mean of the voxels")]
    observed: Annotated[float, Field(ge=0, le=1, description="fraction of them that is lesion")]
    voxels: Annotated[int, Field(ge=1)]


class CrossValidatedDice(OpenRecord):
    """Mean over cases that the weights, or trainings that stand for them, did not see."""

    at_threshold: Annotated[float, Field(ge=0, le=1)]


class Calibration(OpenRecord):
    """How the operating point was chosen, see `calibrate`."""

    dice: Annotated[
        dict[str, CrossValidatedDice] | None,
        Field(description='Dice by kind of case, "volumes" and "pictures"; null: unknown'),
    ] = None
    lesion_free: LesionFree | None = None
    curve: Annotated[
        list[ReliabilityBin] | None,
        Field(min_length=1, description="bins of rising probability; null: unknown"),
    ] = None

    @model_validator(mode="after")
    def _rising(self) -> Self:
        means = [one.probability for one in self.curve or []]
        if means != sorted(set(means)):
            raise ValueError("a curve whose probabilities rise")
        return self


class FeatureLayer(Record):
    """A layer of the network whose channel means are compared."""

    name: Text
    channels: Annotated[int, Field(gt=0)]


class Familiarity(Record):
    """Statistics of training features, see `OODScore`; those before version 0.25 name one layer."""

    layer: Text | None = None
    layers: Annotated[list[FeatureLayer], Field(min_length=1)] | None = None
    mean: Annotated[list[float], Field(min_length=1)]
    sd: list[Annotated[float, Field(gt=0)]]
    centres: Annotated[list[list[float]], Field(min_length=1)] | None = None
    limit: Annotated[float, Field(gt=0)]
    limit_volumes: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        count = len(self.mean)
        if count != len(self.sd):
            raise ValueError(f"as many sd as mean values, which are {count}")
        if (self.layer is None) == (self.layers is None) or (self.layers is None) != (self.centres is None):
            raise ValueError("layers and centres, or the layer of an earlier version")
        if self.layers is not None and sum(one.channels for one in self.layers) != count:
            raise ValueError(f"layers with as many channels as mean values, which are {count}")
        if any(len(centre) != count for centre in self.centres or []):
            raise ValueError(f"centres of as many values as the mean, which are {count}")
        return self


class Metadata(Record):
    """Checkpoint metadata, `model.json` beside `model.pt`."""

    format: Annotated[Literal[1], Field(description="checkpoint metadata of format 1")]
    sha256: Annotated[Sha256, Field(description="the SHA-256 of the weights")]
    network: Annotated[Network, Field(description="name and arguments")]
    preprocessing: Annotated[PreprocessingSteps, Field(description="names and values")]
    operating_point: Annotated[OperatingPoint, Field(description="names and values")]
    data: Annotated[Data, Field(description="names and values")]
    figures: Annotated[dict[str, Any], Field(default_factory=dict, description="measures of the validation")]
    training: Training | None = None
    training_precision: str | None = None
    calibration: Calibration | None = None
    familiarity: Familiarity | None = None
    parent: Ancestor | None = None
    teacher: Ancestor | None = None
    targets: Annotated[
        Annotated[list[str], AfterValidator(_both)] | None,
        Field(description="what the maps of the network are; null: infection alone"),
    ] = None
