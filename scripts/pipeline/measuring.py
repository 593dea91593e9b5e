"""What is measured of a segmented scan, and what a person should know of these numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..anatomy.lungs import Lungs
from ..inference.segmenter import Segmentation, Segmenter
from ..io.volume import Note, Scan, canonical
from ..report.measure import measure_infection
from ..report.positions import locate_lesions
from ..report.wording import much_outside, size

OUTSIDE = ("outside_body", "outside_lungs")
"""Places from which marks are removed, as in the keys of `measures`."""


def measure(
    scan: Scan,
    hu: NDArray[np.int16] | None,
    done: Segmentation,
    segmenter: Segmenter,
    lungs: Lungs | None,
    lobes: NDArray[np.uint8] | None,
) -> tuple[dict[str, Any], list[Note]]:
    """Measure a segmented scan.

    Args:
        scan: the scan.
        hu: its values in HU, (X, Y, Z), LPS; None if they are no HU.
        done: what was segmented in it.
        segmenter: what segmented it.
        lungs: the lungs; None if there are none.
        lobes: the lobes, see `measure_infection`; None if they are not known.

    Returns:
        The measures, as in `report.json`, and findings about them.
    """
    measures = measure_infection(
        None if hu is None else lambda z: hu[..., z],
        canonical(done.mask, scan.affine),
        scan.known_spacing_lps,
        lungs,
        segmenter.least_slice_share,
        done.removed,
        segmenter.lesion_free,
        lobes,
    )
    measures["infection"]["views_agree_percent"] = done.views_agree_percent
    locate_lesions(measures["lesions"]["lesions"], scan)
    return measures, _removed(measures["removed"]) + _outside(measures)


def _outside(measures: Mapping[str, Any]) -> list[Note]:
    """Warn where a large part of the infection lies outside of the lungs."""
    found = much_outside(measures["infection"])
    return [Note("outside_lungs", f"{found}: look at the picture.", "warning")] if found else []


def _removed(removed: Mapping[str, Any]) -> list[Note]:
    """Say how much was removed outside of the body and the lungs."""
    found = [(size(removed, place), place.replace("_", " of the ")) for place in OUTSIDE if removed[f"{place}_voxels"]]
    if not found:
        return []
    text = " and ".join(f"{amount} {where}" for amount, where in found)
    return [Note("outside_removed", f"Marks were removed: {text}. --keep-outside keeps them.", "repair")]
