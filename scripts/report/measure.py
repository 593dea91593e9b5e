"""Numbers of one scan: how much infection, where, how dense, in how many lesions.

Everything is taken in one pass over the axial slices, so that beside the mask only a few slices are
held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..anatomy.lungs import Lungs
from ..anatomy.sides import LEFT, RIGHT
from .density import HuHistogram, density
from .lesions import LesionFinder, describe_lesions
from .severity import severity

NO_LUNGS = "the lungs were not segmented"
PART_OF_LUNGS = "the scan shows a part of the lungs only"
NO_HU = "the values are not Hounsfield units"
NO_SIZE = "the voxel size is unknown: volumes, areas and distances are left out"


@dataclass
class _Pass:
    """What one pass over the slices collects; lung counts are [outside, right, left]."""

    infected: list[int] = field(default_factory=list)
    infected_in_lung: list[int] = field(default_factory=list)
    lung: list[int] = field(default_factory=list)
    infected_by_side: NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, np.int64))
    lung_by_side: NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, np.int64))
    histogram: HuHistogram = field(default_factory=HuHistogram)
    finder: LesionFinder = field(default_factory=LesionFinder)


def measure_infection(
    slices: Callable[[int], NDArray[Any]] | None,
    mask: NDArray[Any],
    spacing: Sequence[float] | None,
    lungs: Lungs | None,
    least_slice_share: float = 0.0,
) -> dict[str, Any]:
    """Measures the infection of one scan.

    A share of lung is infected lung voxels by lung voxels, both on the scan's own grid; infection
    outside of the lung mask is told apart and is in no share. Where the lungs are absent or not
    plausible there are no shares and no grade, but the reason. Where the scan ends within the
    lungs, shares are those of the part scanned, and there is no grade. Where the voxel size is
    unknown, keys of volumes, areas and distances are absent.

    Args:
        slices: gives the axial slice z in HU, (X, Y); None if the values are not HU. Called for
            slices with infection only, in rising order.
        mask: infection wherever above 0, (X, Y, Z), in LPS order: x to the patient's left, y to
            posterior, z to superior.
        spacing: voxel size along x, y, z in mm; None if unknown.
        lungs: the lungs on the same grid; None if there are none.
        least_slice_share: share of a slice that must be infected for it to be counted as affected.

    Returns:
        {"voxel_size", "infection", "lungs", "severity", "lesions", "density", "slice_profile"}:
        numbers, words and lists that JSON can hold. The unit of a number is the end of its key.

    Raises:
        ValueError: if the mask is not a volume.
    """
    if mask.ndim != 3:
        raise ValueError(f"mask must be (X, Y, Z); got shape {mask.shape}")
    reason = _why_no_shares(lungs)
    counts = _count(slices, mask, lungs if reason is None else None)
    voxel_ml = None if spacing is None else float(np.prod(spacing)) / 1000
    parts = _lungs(counts, voxel_ml, reason)
    shares = {part: parts[part]["infected_percent"] if reason is None else None for part in ("total", "right", "left")}
    return {
        "voxel_size": {"reason": NO_SIZE} if spacing is None else {"spacing_mm": [float(step) for step in spacing]},
        "infection": _infection(counts, voxel_ml, reason is None, least_slice_share * mask.shape[0] * mask.shape[1]),
        "lungs": {
            **parts,
            "doubts": [] if lungs is None else list(lungs.doubts),
            "cuts": [] if lungs is None else list(lungs.cuts),
            "reason": reason,
        },
        "severity": severity(shares, reason or (PART_OF_LUNGS if lungs is not None and lungs.cuts else None)),
        "lesions": describe_lesions(counts.finder, mask.shape[2], voxel_ml, lungs_known=reason is None),
        "density": {"reason": NO_HU} if slices is None else density(counts.histogram, voxel_ml),
        "slice_profile": _profile(counts, spacing, reason is None),
    }


def _why_no_shares(lungs: Lungs | None) -> str | None:
    """Why there are no shares of the lungs; None if there are."""
    if lungs is None:
        return NO_LUNGS
    if lungs.plausible:
        return None
    doubts = "; ".join(doubt.rstrip(".") for doubt in lungs.doubts)
    return f"the lungs as segmented are not plausible: {doubts}"


def _count(slices: Callable[[int], NDArray[Any]] | None, mask: NDArray[Any], lungs: Lungs | None) -> _Pass:
    """Goes through the slices once."""
    counts = _Pass()
    for z in range(mask.shape[2]):
        infected = np.ascontiguousarray(mask[:, :, z] > 0)
        lung = None if lungs is None else lungs.slab(z)
        counts.infected.append(int(np.count_nonzero(infected)))
        if lung is not None:
            _count_sides(counts, infected, lung)
        if counts.infected[-1]:
            counts.finder.add(z, infected, lung)
            if slices is not None:
                counts.histogram.add(slices(z)[infected])
    return counts


def _count_sides(counts: _Pass, infected: NDArray[np.bool_], lung: NDArray[np.uint8]) -> None:
    """Adds one slice to the counts per lung."""
    all_sides, infected_sides = (np.bincount(some.ravel(), minlength=3) for some in (lung, lung[infected]))
    counts.lung_by_side += all_sides
    counts.infected_by_side += infected_sides
    counts.lung.append(int(all_sides[1:].sum()))
    counts.infected_in_lung.append(int(infected_sides[1:].sum()))


def _infection(counts: _Pass, voxel_ml: float | None, lungs_known: bool, least: float) -> dict[str, Any]:
    """How much infection there is, and how much of it lies outside of the lungs."""
    voxels = sum(counts.infected)
    found: dict[str, Any] = {"present": voxels > 0}
    found |= _sized("infection", voxels, voxel_ml)
    found["affected_slice_count"] = sum(area > 0 and area >= least for area in counts.infected)
    found["slice_count"] = len(counts.infected)
    if lungs_known:
        outside = int(counts.infected_by_side[0])
        found |= _sized("outside_lungs", outside, voxel_ml)
        found["outside_lungs_percent"] = _percent(outside, voxels)
    return found


def _lungs(counts: _Pass, voxel_ml: float | None, reason: str | None) -> dict[str, Any]:
    """Volume, infection and share of both lungs and of each."""
    if reason is not None:
        return {"total": None, "right": None, "left": None}
    parts = {"total": slice(RIGHT, LEFT + 1), "right": slice(RIGHT, RIGHT + 1), "left": slice(LEFT, LEFT + 1)}
    found: dict[str, Any] = {}
    for part, side in parts.items():
        lung, infected = int(counts.lung_by_side[side].sum()), int(counts.infected_by_side[side].sum())
        sizes = _sized("lung", lung, voxel_ml) | _sized("infection", infected, voxel_ml)
        found[part] = {**sizes, "infected_percent": _percent(infected, lung)}
    return found


def _profile(counts: _Pass, spacing: Sequence[float] | None, lungs_known: bool) -> dict[str, Any]:
    """Columns with one entry per axial slice, from the most superior to the most inferior one.

    Slices are counted from 1; the position is the distance from the most superior slice.
    """
    depth = len(counts.infected)
    infected = counts.infected[::-1]
    columns: dict[str, Any] = {
        "slice_from_superior": list(range(1, depth + 1)),
        "slice_from_inferior": list(range(depth, 0, -1)),
        "infection_voxels": infected,
    }
    if lungs_known:
        lung, inside = counts.lung[::-1], counts.infected_in_lung[::-1]
        columns["lung_voxels"] = lung
        columns["infected_percent"] = [_percent(*pair) for pair in zip(inside, lung, strict=True)]
    if spacing is not None:
        x, y, z = (float(step) for step in spacing)
        columns["below_most_superior_slice_mm"] = [k * z for k in range(depth)]
        for name in ("infection", "lung") if lungs_known else ("infection",):
            columns[f"{name}_mm2"] = [voxels * x * y for voxels in columns[f"{name}_voxels"]]
    return columns


def _sized(name: str, voxels: int, voxel_ml: float | None) -> dict[str, Any]:
    """A size in voxels and, where a voxel's volume is known, in ml."""
    size: dict[str, Any] = {f"{name}_voxels": voxels}
    return size if voxel_ml is None else {**size, f"{name}_ml": voxels * voxel_ml}


def _percent(part: int, whole: int) -> float | None:
    """A share in percent; None of nothing."""
    return 100 * part / whole if whole else None
