"""Measure the infection of each lobe, and score it after Pan et al. 2020."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..anatomy.lobes import LOBES
from .amounts import percent_of, sized
from .severity import SCALE, SOURCE, grade

CAUTION = (
    "The infected percentage of a lobe is measured as volume, where Pan et al. judged by eye. The CT severity score is "
    "the sum of five lobes, 0 to 25."
)


def measure_lobes(
    lobes: NDArray[np.uint8], mask: NDArray[Any], voxel_ml: float | None, reason: str | None
) -> dict[str, Any]:
    """Measure the infection of each lobe, and score it from 0 to 5 and their sum of 25.

    Args:
        lobes: (X, Y, Z), LPS, with the codes of `LOBES`.
        mask: infection wherever above 0, of the same shape; ValueError for another one.
        voxel_ml: volume of a voxel; None if unknown: there are no volumes.
        reason: why nothing can be scored; None if it can.

    Returns:
        {"parts": for each of `LOBES` {"lobe_voxels", "lobe_ml", "infection_voxels", "infection_ml",
        "infected_percent", "score_of_5"}, or None where the mask lacks it; "score_of_25": None
        without a lobe or for the "reason"; "scale", "source", "caution"}.
    """
    if lobes.shape != mask.shape:
        raise ValueError(f"the lobe mask has shape {lobes.shape}; expected: that of the mask, {mask.shape}")
    voxels, infected = np.zeros((2, len(LOBES) + 1), np.int64)
    for z in range(lobes.shape[2]):
        plane = lobes[:, :, z]
        voxels += np.bincount(plane.ravel(), minlength=len(voxels))
        infected += np.bincount(plane[mask[:, :, z] > 0], minlength=len(voxels))
    parts = {
        name: _describe(int(voxels[code]), int(infected[code]), voxel_ml, scored=reason is None)
        for code, name in enumerate(LOBES, 1)
    }
    missing = [name.replace("_", " ") for name, part in parts.items() if part is None]
    if missing:
        reason = reason or f"the lobe mask lacks the {' and the '.join(missing)} lobe"
    return {
        "parts": parts,
        "score_of_25": None if reason else sum(part["score_of_5"] for part in parts.values() if part),
        "reason": reason,
        "scale": SCALE,
        "source": SOURCE,
        "caution": CAUTION,
    }


def _describe(voxels: int, infected: int, voxel_ml: float | None, scored: bool) -> dict[str, Any] | None:
    percent = percent_of(infected, voxels)
    if percent is None:
        return None
    score = grade(percent)["grade_of_5"] if scored else None
    sizes = sized("lobe", voxels, voxel_ml) | sized("infection", infected, voxel_ml)
    return {**sizes, "infected_percent": percent, "score_of_5": score}
