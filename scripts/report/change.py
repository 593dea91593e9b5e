"""Compare a scan with the report of an earlier one: volumes, lungs, lesions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from .amounts import volumes
from .lesion_matching import match_lesions, why_not_comparable
from .wording import certain

PARTS = ("total", "right", "left")


def describe_change(
    prior: Mapping[str, Any], measures: Mapping[str, Any], day: str | None, same_patient: bool | None
) -> dict[str, Any]:
    """Describe what changed since an earlier report.

    Args:
        prior: the earlier report, with volumes in ml.
        measures: what `measure_infection` gives for this scan, with volumes in ml.
        day: of this examination, YYYY-MM-DD; None if not known.
        same_patient: whether both are of one patient; None if not known.

    Returns:
        {"prior": {"name", "date", "created", "version"}, "date", "days": from the earlier
        examination to this one; "same_patient"; "reason": see `why_not_comparable`; "infection" and
        "lungs" ("total", "right", "left", or None where one of the reports has no percentages):
        {"prior_ml", "ml", "change_ml", "change_percent": None where nothing was there}, in the
        lungs also "prior_infected_percent" and "infected_percent", None for a lower bound;
        "lesions": see `match_lesions`}.
    """
    before, measures = certain(prior["measures"]), certain(measures)
    earlier = prior["case"]["facts"].get("date")
    lungs = {part: _lung(before["lungs"][part], measures["lungs"][part]) for part in PARTS}
    return {
        "prior": {
            "name": prior["case"]["name"],
            "date": earlier,
            "created": prior["created"],
            "version": prior["model"]["version"],
        },
        "date": day,
        "days": (date.fromisoformat(day) - date.fromisoformat(earlier)).days if day and earlier else None,
        "same_patient": same_patient,
        "reason": why_not_comparable(before, measures),
        "infection": volumes(before["infection"]["infection_ml"], measures["infection"]["infection_ml"]),
        "lungs": lungs,
        "lesions": match_lesions(before, measures),
    }


def _lung(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if before is None or now is None:
        return None
    shares = {"prior_infected_percent": before["infected_percent"], "infected_percent": now["infected_percent"]}
    return volumes(before["infection_ml"], now["infection_ml"]) | shares
