"""Grade the percentage of the lungs that is infected."""

from collections.abc import Mapping
from typing import Any

SCALE = "0 none; 1 below 5 %; 2 from 5 to 25 %; 3 above 25 and below 50 %; 4 from 50 to 75 %; 5 above 75 %"
SOURCE = (
    "After the score of one lobe in Pan et al., Time Course of Lung Changes at Chest CT during Recovery from "
    "Coronavirus Disease 2019 (COVID-19), Radiology 2020;295:715-721, doi 10.1148/radiol.2020200370; the gaps "
    "between its steps (25 to 26 %, 49 to 50 %) are closed here."
)
CAUTION = (
    "The limits are applied to the whole lung and to each lung, measured and not judged by eye. The grade is NOT the "
    "25-point lobar CT severity score. The words for the grades are this report's own."
)
MUCH_OUTSIDE_PERCENT = 20
"""From this percentage of the infection outside of the lungs on there is a warning and no grade:
the lungs as segmented may lack what is infected."""
_GRADES = ("none", "minimal", "mild", "moderate", "severe", "critical")


def grade(percent: float) -> dict[str, Any]:
    """Grade the infected percentage of a lung, or of both: 0 to 5 and a word.

    >>> [grade(value)["grade_of_5"] for value in (0, 0.01, 5, 25, 25.1, 49.9, 50, 75, 75.1, 100)]
    [0, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    """
    reached = (percent > 0, percent >= 5, percent > 25, percent >= 50, percent > 75)
    return {"grade_of_5": sum(reached), "category": _GRADES[sum(reached)]}


def severity(percents: Mapping[str, float | None], reason: str | None) -> dict[str, Any]:
    """Grade both lungs together and each lung by infected percentage, None where it is unknown.

    A `reason` says why nothing can be graded.
    """
    grades = None
    if reason is None:
        grades = {part: None if percent is None else grade(percent) for part, percent in percents.items()}
    return {"scale": SCALE, "source": SOURCE, "caution": CAUTION, "grades": grades, "reason": reason}
