"""Measure the infection of one scan: how much there is, where, how dense, in how many lesions.

The axial slices are read once, so that only a few of them are in memory beside the mask.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..anatomy.lungs import Lungs
from ..anatomy.outside import KEPT, PART_OF_LUNGS, Removed, why_kept
from ..anatomy.sides import LEFT, RIGHT
from .amounts import percent_of, sized
from .density import HuHistogram, density
from .lesion_free import WITHIN, compare
from .lesions import LesionFinder, describe_lesions
from .lobes import measure_lobes
from .severity import severity
from .wording import much_outside

NO_LUNGS = "the lungs were not segmented"
NO_HU = "the values are not Hounsfield units"
NO_SIZE = "the voxel size is unknown: volumes, areas and distances are left out"
_PARTS = {"total": [RIGHT, LEFT], "right": [RIGHT], "left": [LEFT]}


@dataclass
class _Counts:
    """Counts of one pass over the slices; (slices, 3): outside, right lung, left lung."""

    infected: NDArray[np.int64]
    lung: NDArray[np.int64]
    histogram: HuHistogram = field(default_factory=HuHistogram)
    finder: LesionFinder = field(default_factory=LesionFinder)


def measure_infection(
    slices: Callable[[int], NDArray[Any]] | None,
    mask: NDArray[Any],
    spacing: Sequence[float] | None,
    lungs: Lungs | None,
    least_slice_share: float = 0.0,
    removed: Removed = KEPT,
    lesion_free: Mapping[str, Any] | None = None,
    lobes: NDArray[np.uint8] | None = None,
) -> dict[str, Any]:
    """Measure the infection of one scan.

    The percentage of a lung is its infected voxels divided by all of its voxels, on the scan's own
    grid. Infection outside of the lungs is counted apart. Without plausible lungs there are no
    percentages and no grade, but the reason. Where the scan ends within the lungs, percentages are
    those of the scanned part, and there is no grade. There is none either where much of the
    infection lies outside of the lungs: they may lack a consolidated lobe. Where the voxel size is
    unknown, the keys of volumes, areas and distances are absent.

    Args:
        slices: gives the axial slice z in HU, (X, Y); None if the values are not HU. Called for
            slices with infection only, in rising order.
        mask: infection wherever above 0, (X, Y, Z), in LPS order; ValueError for other shapes.
        spacing: voxel size along x, y, z in mm; None if unknown.
        lungs: the lungs on the same grid; None if there are none.
        least_slice_share: minimum fraction of a slice that is infected where the slice counts as
            affected.
        removed: what was removed from the mask before.
        lesion_free: what the weights mark on scans without infection, see `compare`; there is no
            grade for an amount within that.
        lobes: the lobes on the same grid with the codes of `LOBES`; None if there are none: they
            are not found in the scan.

    Returns:
        {"voxel_size", "infection", "lesion_free", "removed", "lungs", "severity", "lobes",
        "lesions", "density", "slice_profile"}: numbers, words and lists that JSON can hold. The
        unit of a number is the end of its key.
    """
    if mask.ndim != 3:
        raise ValueError(f"mask must be (X, Y, Z); got shape {mask.shape}")
    reason = _why_no_percentages(lungs)
    lungs_known = reason is None
    counts = _count(slices, mask, lungs if lungs_known else None)
    voxel_ml = None if spacing is None else float(np.prod(spacing)) / 1000
    parts = _lungs(counts, voxel_ml) if lungs_known else dict.fromkeys(_PARTS)
    doubts, cuts = ([], []) if lungs is None else (list(lungs.doubts), list(lungs.cuts))
    infection = _infection(counts, voxel_ml, lungs_known, mask.shape, least_slice_share)
    compared = compare(lesion_free, infection, int(counts.lung.sum()))
    graded = severity(
        {part: found and found["infected_percent"] for part, found in parts.items()},
        reason
        or (PART_OF_LUNGS if cuts else None)
        or much_outside(infection)
        or (f"the amount is {WITHIN}" if compared and compared["within"] else None),
    )
    return {
        "voxel_size": {"reason": NO_SIZE} if spacing is None else {"spacing_mm": [float(step) for step in spacing]},
        "infection": infection,
        "lesion_free": compared,
        "removed": {
            **sized("outside_body", removed.outside_body, voxel_ml),
            **sized("outside_lungs", removed.outside_lungs, voxel_ml),
            "reason": removed.reason,
        },
        "lungs": {
            **parts,
            "box_index": lungs.box() if lungs is not None and lungs_known else None,
            "doubts": doubts,
            "cuts": cuts,
            "reason": reason,
        },
        "severity": graded,
        "lobes": None if lobes is None else measure_lobes(lobes, mask, voxel_ml, graded["reason"]),
        "lesions": describe_lesions(counts.finder, mask.shape[2], voxel_ml, lungs_known),
        "density": {"reason": NO_HU} if slices is None else density(counts.histogram, voxel_ml),
        "slice_profile": _profile(counts, spacing, lungs_known),
    }


def affected_slices(areas: NDArray[np.integer[Any]], shape: Sequence[int], least_slice_share: float) -> int:
    """Count the affected slices of a mask of a shape, see `measure_infection`."""
    return int(np.count_nonzero((areas > 0) & (areas >= least_slice_share * shape[0] * shape[1])))


def _why_no_percentages(lungs: Lungs | None) -> str | None:
    if lungs is None:
        return NO_LUNGS
    return None if lungs.plausible else why_kept(lungs)


def _count(slices: Callable[[int], NDArray[Any]] | None, mask: NDArray[Any], lungs: Lungs | None) -> _Counts:
    depth = mask.shape[2]
    counts = _Counts(np.zeros((depth, 3), np.int64), np.zeros((depth, 3), np.int64))
    if lungs is not None:
        counts.lung[:, [RIGHT, LEFT]] = lungs.areas()
    for z in (z for z in range(depth) if (mask[:, :, z] > 0).any()):
        infected = np.ascontiguousarray(mask[:, :, z] > 0)
        sides = None if lungs is None else lungs.slab(z)
        if sides is None:
            counts.infected[z, 0] = np.count_nonzero(infected)
        else:
            counts.infected[z] = np.bincount(sides[infected], minlength=3)
        counts.finder.add(z, infected, sides)
        if slices is not None:
            counts.histogram.add(slices(z)[infected])
    return counts


def _infection(
    counts: _Counts, voxel_ml: float | None, lungs_known: bool, shape: Sequence[int], share: float
) -> dict[str, Any]:
    areas = counts.infected.sum(axis=1)
    voxels, outside = int(areas.sum()), int(counts.infected[:, 0].sum())
    found: dict[str, Any] = {"present": voxels > 0, **sized("infection", voxels, voxel_ml)}
    found["affected_slice_count"] = affected_slices(areas, shape, share)
    found["slice_count"] = len(areas)
    if lungs_known:
        found |= sized("outside_lungs", outside, voxel_ml)
        found["outside_lungs_percent"] = percent_of(outside, voxels)
    return found


def _lungs(counts: _Counts, voxel_ml: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part, sides in _PARTS.items():
        lung, infected = int(counts.lung[:, sides].sum()), int(counts.infected[:, sides].sum())
        sizes = sized("lung", lung, voxel_ml) | sized("infection", infected, voxel_ml)
        found[part] = {**sizes, "infected_percent": percent_of(infected, lung)}
    return found


def _profile(counts: _Counts, spacing: Sequence[float] | None, lungs_known: bool) -> dict[str, Any]:
    """Return columns with an entry per axial slice, from superior to inferior."""
    infected, lung = counts.infected[::-1], counts.lung[::-1, 1:].sum(axis=1).tolist()
    depth = len(infected)
    columns: dict[str, Any] = {
        "slice_from_superior": list(range(1, depth + 1)),
        "slice_from_inferior": list(range(depth, 0, -1)),
        "infection_voxels": infected.sum(axis=1).tolist(),
    }
    if lungs_known:
        inside = infected[:, 1:].sum(axis=1).tolist()
        columns["lung_voxels"] = lung
        columns["infected_percent"] = [percent_of(*pair) for pair in zip(inside, lung, strict=True)]
    if spacing is not None:
        x, y, z = (float(step) for step in spacing)
        columns["below_most_superior_slice_mm"] = [k * z for k in range(depth)]
        for name in ("infection", "lung") if lungs_known else ("infection",):
            columns[f"{name}_mm2"] = [voxels * x * y for voxels in columns[f"{name}_voxels"]]
    return columns
