"""Compare what is marked on a scan with what the weights mark on scans without infection."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..inference.metadata import LESION_FREE_UNITS

PERCENT, ML = LESION_FREE_UNITS
WITHIN = "within what is marked on scans without infection"
FEWEST = 20
"""From this number of scans on the 95th percentile may be below the largest value."""


def usual_limit(values: Sequence[float]) -> float:
    """Return up to where an amount is usual without infection: the 95th percentile.

    Of fewer than `FEWEST` values it would be the largest, so that one odd scan would take the grade
    from any mild disease. Of these it is the median.

    >>> usual_limit([0.1, 5.4, 0.02]), usual_limit(range(1, 21))
    (0.1, 19.0)
    """
    if len(values) < FEWEST:
        return float(np.median(values))
    return float(np.percentile(values, 95, method="inverted_cdf"))


def compare(stated: Mapping[str, Any] | None, infection: Mapping[str, Any], lung_voxels: int) -> dict[str, Any] | None:
    """Compare the marks of a scan with those on scans without infection.

    Args:
        stated: "calibration.lesion_free" of the checkpoint metadata; None where it is not known, or
            the weights are not applied as they were calibrated.
        infection: "infection" of what `measure_infection` gives.
        lung_voxels: voxels of both lungs; 0 where they are not known.

    Returns:
        {"unit": "percent_of_lungs" (all marks, in percent of the volume of the lungs) or "ml";
        "value": of this scan; "volumes", "median", "limit" (`usual_limit`), "largest": of the scans
        without infection; "within": whether the scan has marks, and not more than the limit}. None
        where there is nothing to compare with.
    """
    if stated is None:
        return None
    if lung_voxels and stated[PERCENT]:
        unit, value = PERCENT, 100 * infection["infection_voxels"] / lung_voxels
    elif "infection_ml" in infection and stated[ML]:
        unit, value = ML, infection["infection_ml"]
    else:
        return None
    values = stated[unit]
    limit = usual_limit(values)
    return {
        "unit": unit,
        "value": value,
        "volumes": len(values),
        "median": float(np.median(values)),
        "limit": limit,
        "largest": max(values),
        "within": infection["present"] and value <= limit,
    }
