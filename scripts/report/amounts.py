"""Write amounts as reports hold them: voxels, ml where the voxel size is known, percent."""

from typing import Any


def sized(name: str, voxels: int, voxel_ml: float | None) -> dict[str, Any]:
    """Return `name`_voxels, and `name`_ml where a voxel's volume is known."""
    size: dict[str, Any] = {f"{name}_voxels": voxels}
    return size if voxel_ml is None else {**size, f"{name}_ml": voxels * voxel_ml}


def percent_of(part: float, whole: float) -> float | None:
    """Return a part in percent of the whole; None of nothing."""
    return 100 * part / whole if whole else None


def volumes(before: float, now: float) -> dict[str, Any]:
    """Compare two volumes in ml; there is no percentage of nothing.

    >>> volumes(2.0, 3.0)
    {'prior_ml': 2.0, 'ml': 3.0, 'change_ml': 1.0, 'change_percent': 50.0}
    """
    change = now - before
    return {"prior_ml": before, "ml": now, "change_ml": change, "change_percent": percent_of(change, before)}
