"""Check whether a lung mask is plausible, and whether it holds the whole of both lungs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .downsampling import Spacing

# Litres of gas and tissue. Lower end: residual volume of a small young woman, 0.8 with a lower
# limit of normal of about 0.5, upper end: total lung capacity of a man of 2.05 m, about 10 (Hall et
# al., Eur Respir J 2021;57:2000289), and half a litre to a litre of tissue and blood in either.
ADULT = (1.0, 11.0)
# The right lung's fraction is 53.6 +- 1.5 % in the healthy (Yamada et al. 2020, PMC7490509); a lung
# that is collapsed or resected goes far beyond that, and is as rare as a mask that is wrong.
RIGHT_FRACTION = (0.38, 0.70)
_CUT_END = 0.08  # of the largest axial area: what more than the tip of a recess or of an apex
_CUT_SIDE = 4.0  # cm^2 of lung on a side of the field of view
_FEW = 6  # slices


def find_cuts(mask: NDArray[np.uint8], spacing: Spacing) -> list[str]:
    """Say where the scan ends within the lungs.

    Args:
        mask: 0 none, 1 right, 2 left, (X, Y, Z), LPS.
        spacing: voxel size in mm.

    Returns:
        Sentences for a radiologist.
    """
    return _cut_ends(mask) + _cut_sides(mask, spacing)


def find_doubts(slices: int, right_ml: float, left_ml: float, cut: bool) -> list[str]:
    """Say what speaks against a lung mask of an adult.

    Args:
        slices: how many slices the scan has.
        right_ml: volume of the right lung.
        left_ml: volume of the left lung.
        cut: whether the scan ends within the lungs, whose parts may be small.

    Returns:
        Sentences for a radiologist.
    """
    if not right_ml + left_ml:
        return ["No lung was found in the scan."]
    few = [f"Lungs cannot be told reliably in {slices} slices."] if slices < _FEW else []
    return _judge_volumes(right_ml, left_ml, cut) + few


def _cut_ends(mask: NDArray[np.uint8]) -> list[str]:
    """Return whether lung goes on beyond the first or the last slice."""
    areas = np.array([np.count_nonzero(mask[:, :, z]) for z in range(mask.shape[2])])
    ends = [name for name, z in (("lowest", 0), ("highest", -1)) if areas[z] > _CUT_END * areas.max()]
    if not ends:
        return []
    return [
        f"Lungs are incomplete: they go on beyond the {' and the '.join(ends)} slice, so that percentages of a lung "
        "are those of the part that was scanned."
    ]


def _cut_sides(mask: NDArray[np.uint8], spacing: Spacing) -> list[str]:
    """Return whether lung goes on beyond a side of the field of view."""
    sides = {
        "right": (mask[0], spacing[1]),
        "left": (mask[-1], spacing[1]),
        "front": (mask[:, 0], spacing[0]),
        "back": (mask[:, -1], spacing[0]),
    }
    cut = [
        name for name, (plane, size) in sides.items() if np.count_nonzero(plane) * size * spacing[2] / 100 > _CUT_SIDE
    ]
    if not cut:
        return []
    return [
        f"Lungs are incomplete: the field of view cuts them at the patient's {', '.join(cut)}, so that "
        "percentages of a lung are those of the part that was scanned."
    ]


def _judge_volumes(right_ml: float, left_ml: float, cut: bool) -> list[str]:
    """What the volumes of both lungs say; the parts of lungs that a scan cuts may be small."""
    total, fraction = (right_ml + left_ml) / 1000, right_ml / (right_ml + left_ml)
    smallest, largest = ADULT
    low, high = RIGHT_FRACTION
    problems = []
    if total > largest or (total < smallest and not cut):
        problems.append(
            f"Lungs of {total:.1f} l were found, where adults have {smallest:.0f} to {largest:.0f} l: the mask or the "
            "voxel size is wrong, or this is no adult."
        )
    if fraction in (0, 1):
        problems.append(f"No {'left' if fraction else 'right'} lung was found.")
    elif not low <= fraction <= high:
        problems.append(
            f"The right lung has {fraction:.0%} of the lungs' volume, where {low:.0%} to {high:.0%} are usual: a lung "
            "is collapsed, consolidated, resected or badly found."
        )
    return problems
