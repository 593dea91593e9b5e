"""What of an earlier report a comparison reads; further keys do not matter."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ..schema import OpenRecord


def _day(text: str) -> str:
    date.fromisoformat(text)
    return text


Number = Annotated[float, Field(allow_inf_nan=False)]
Amount = Annotated[Number, Field(ge=0)]
Index = Annotated[list[Number], Field(min_length=3, max_length=3)]
Span = Annotated[list[int], Field(min_length=2, max_length=2)]


class PriorLung(OpenRecord):
    """Amounts of one lung or both."""

    infection_ml: Amount
    infected_percent: Amount | None


class PriorLungs(OpenRecord):
    """The lungs, with the box around both."""

    total: PriorLung | None
    right: PriorLung | None
    left: PriorLung | None
    reason: str | None
    cuts: list[Any]
    box_index: Annotated[list[Span], Field(min_length=3, max_length=3)] | None = None


class PriorLesion(OpenRecord):
    """A listed lesion."""

    volume_ml: Amount
    side: str | None
    centroid_index: Index


class PriorLesions(OpenRecord):
    """All lesions, of which the largest are listed."""

    lesion_count: int
    listed_count: int
    lesions: list[PriorLesion]


class PriorInfection(OpenRecord):
    """The infection as a whole."""

    infection_ml: Amount
    outside_lungs_percent: Amount | None = None


class PriorMeasures(OpenRecord):
    """What was measured."""

    infection: PriorInfection
    lungs: PriorLungs
    lesions: PriorLesions


class PriorPatient(OpenRecord):
    """The hash of a PatientID."""

    salt: str
    pbkdf2_sha256: str


class PriorFacts(OpenRecord):
    """What the header says."""

    date: Annotated[str, AfterValidator(_day)] | None = None


class PriorCase(OpenRecord):
    """The earlier scan."""

    name: str
    patient: PriorPatient | None = None
    facts: PriorFacts


class PriorModel(OpenRecord):
    """The weights and settings that it was segmented with."""

    version: str
    weights_sha256: str
    preprocessing: dict[str, Any]
    operating_point: dict[str, Any]


class PriorReport(OpenRecord):
    """An earlier report, see `PriorMeasures` for its numbers."""

    format: Literal[1]
    created: str
    case: PriorCase
    measures: PriorMeasures
    model: PriorModel
