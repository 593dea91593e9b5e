"""Match the lesions of two examinations by where they lie in the lungs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .amounts import volumes
from .lesions import BOTH_LUNGS, OUTSIDE

REACH_MM = 15.0
"""How far apart the centres of one lesion may lie at least: breathing moves them."""
LIMIT_PERCENT = 25.0
"""Change of a volume up to which a lesion is called stable."""
RULE = (
    "The boxes around both lungs are laid over each other. Two lesions of one lung, or of which one lies in both, are "
    f"one if their centres then lie at most {REACH_MM:.0f} mm apart, or the radius of a sphere with the larger volume; "
    f"the nearest pair comes first. Grown and shrunk: by more than {LIMIT_PERCENT:.0f} % of the earlier volume. "
    "Lesions that merge or part count as one that changed and others that are gone or new."
)
STATES = ("new", "grown", "stable", "shrunk", "gone")

Lesion = Mapping[str, Any]


def match_lesions(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Match the listed lesions of two scans.

    Args:
        before: "measures" of the earlier report, with volumes in ml.
        now: those of this scan.

    Returns:
        {"rule": in words, "reason": why nothing was matched, or None; "counts": how many lesions
        are in each of `STATES`, "rows": lesions of this scan by number, then those that are gone:
        {"state", "number" (in this report, None if gone), "prior_number" (None if new), "side",
        "distance_mm" between the centres, "prior_ml", "ml", "change_ml", "change_percent"};
        "complete": whether all lesions of both scans are listed}.
    """
    reason = why_not_comparable(before, now) or _why_not_placed(before) or _why_not_placed(now)
    complete = all(one["lesions"]["lesion_count"] == one["lesions"]["listed_count"] for one in (before, now))
    rows = [] if reason else _rows(before, now)
    found = Counter(row["state"] for row in rows)
    counts = None if reason else {f"{state}_count": found[state] for state in STATES}
    return {"rule": RULE, "reason": reason, "counts": counts, "rows": rows, "complete": complete}


def why_not_comparable(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Say why a difference of two scans may be of what they show; None if both show whole lungs.

    Args:
        before: "measures" of the earlier report.
        now: those of this scan.
    """
    for lungs in (before["lungs"], now["lungs"]):
        if lungs["reason"] is not None:
            return f"the lungs of one of the scans are not known ({lungs['reason']})"
        if lungs["cuts"]:
            return "one of the scans ends within the lungs"
    return None


def _why_not_placed(measures: Mapping[str, Any]) -> str | None:
    return (
        None
        if measures["lungs"].get("box_index")
        else "the earlier report has no box of the lungs: segment that scan anew"
    )


def _rows(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    earlier, current = before["lesions"]["lesions"], now["lesions"]["lesions"]
    distances = _distances(before, now)
    partner = _pair(earlier, current, distances)
    rows = []
    for number, lesion in enumerate(current, 1):
        prior = partner.get(number - 1)
        rows.append(_row(earlier[prior] if prior is not None else None, lesion, prior, number))
        if prior is not None:
            rows[-1]["distance_mm"] = float(distances[prior, number - 1])
    gone = [k for k in range(len(earlier)) if k not in partner.values()]
    return rows + [_row(earlier[k], None, k, None) for k in gone]


def _row(before: Lesion | None, now: Lesion | None, prior: int | None, number: int | None) -> dict[str, Any]:
    sizes = volumes(before["volume_ml"] if before else 0.0, now["volume_ml"] if now else 0.0)
    side = (now or before or {})["side"]
    return {
        "state": "new" if before is None else "gone" if now is None else state(sizes["change_percent"]),
        "number": number,
        "prior_number": None if prior is None else prior + 1,
        "side": side,
        "distance_mm": None,
        **sizes,
    }


def state(percent: float) -> str:
    """Name the change of a matched lesion.

    >>> [state(percent) for percent in (-25.1, -25.0, 25.0, 25.1)]
    ['shrunk', 'stable', 'stable', 'grown']
    """
    exact = round(percent, 6)  # a volume of five voxels is not that of four and a quarter of it, in binary
    return "grown" if exact > LIMIT_PERCENT else "shrunk" if exact < -LIMIT_PERCENT else "stable"


def _pair(earlier: Sequence[Lesion], current: Sequence[Lesion], distances: NDArray[np.float64]) -> dict[int, int]:
    """Return the index of the earlier lesion by that of the current one, nearest pairs first."""
    partner: dict[int, int] = {}
    for flat in np.argsort(distances, axis=None, kind="stable"):
        k, j = divmod(int(flat), len(current))
        near = distances[k, j] <= max(REACH_MM, _radius(earlier[k]), _radius(current[j]))
        if near and _on_one_side(earlier[k], current[j]) and k not in partner.values() and j not in partner:
            partner[j] = k
    return partner


def _on_one_side(earlier: Lesion, current: Lesion) -> bool:
    sides = {earlier["side"], current["side"]}
    return len(sides) == 1 or (BOTH_LUNGS in sides and OUTSIDE not in sides)


def _radius(lesion: Lesion) -> float:
    """Return the radius in mm of a sphere with the lesion's volume."""
    return float((3000 * lesion["volume_ml"] / (4 * math.pi)) ** (1 / 3))


def _distances(before: Mapping[str, Any], now: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return distances of centres in mm of this scan, the boxes aligned, (earlier, current)."""
    places = [_places(one) for one in (before, now)]
    first, last = np.array(now["lungs"]["box_index"], float).T
    size = (last - first + 1) * now["voxel_size"]["spacing_mm"]
    return np.linalg.norm((places[0][:, None] - places[1][None]) * size, axis=2)


def _places(measures: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the centres of lesions in the box of the lungs, 0 to 1 along each axis, (N, 3)."""
    first, last = np.array(measures["lungs"]["box_index"], float).T
    centres = np.array([lesion["centroid_index"] for lesion in measures["lesions"]["lesions"]], float).reshape(-1, 3)
    return (centres - first + 0.5) / (last - first + 1)
