"""Measure what weights mark on volumes without infection that they did not see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..anatomy.lungs import segment_lungs
from ..anatomy.tissue import segment_tissue
from ..data.datalist import select_cases
from ..data.layouts.case import Case
from ..io.images import is_picture
from ..io.reading import read_scan
from .hounsfield import HounsfieldSlices
from .metadata import LESION_FREE_UNITS
from .segmenter import Segmenter

MOST = 40
"""Largest number of volumes of a fold that are measured; of more, evenly spread ones."""

Marked = dict[str, float]
"""What is marked on a volume, in those of `LESION_FREE_UNITS` that are known."""


def lesion_free_volumes(data: str, metadata: Mapping[str, Any]) -> list[Case]:
    """Return whole volumes without infection in the validation fold of checkpoint metadata."""
    cases = select_cases(data, "validation", metadata["data"].get("fold"), masks=False)
    free = [case for case in cases if case.get("lesion_free") and "slices" not in case]
    volumes = [case for case in free if not is_picture(case["image"])]
    chosen = np.linspace(0, len(volumes) - 1, min(MOST, len(volumes))).round().astype(int)
    return [volumes[index] for index in chosen]


def mark_volumes(cases: Sequence[Case], segmenter: Segmenter) -> list[Marked]:
    """Segment volumes as `segment` does and measure what is marked.

    Returns:
        For each volume all marks, those outside of the lungs too, in percent of the voxels of both
        lungs where these are plausible, and in ml where the voxel size is known.
    """
    return [_mark(case, segmenter) for case in tqdm(cases, desc="lesion-free volumes", unit="case")]


def _mark(case: Case, segmenter: Segmenter) -> Marked:
    scan = read_scan(Path(case["image"]))
    slices = HounsfieldSlices(scan, case.get("intensity") or segmenter.intensity)
    known = scan.voxel_size_known
    seen = segment_tissue(slices.rounded(), scan.spacing_lps) if known else None
    lungs = segment_lungs(seen) if seen else None
    mask = segmenter.segment(scan, slices, anatomy=(seen, lungs) if seen and lungs else None).mask
    voxels = int(np.count_nonzero(mask))
    marked = {"ml": voxels * scan.voxel_mm3 / 1000} if known else {}
    if lungs and lungs.plausible and (whole := int(lungs.areas().sum())):
        marked["percent_of_lungs"] = 100 * voxels / whole
    return marked


def describe_marked(marked: Iterable[Marked]) -> dict[str, Any] | None:
    """Return what checkpoint metadata hold under `LESION_FREE`; None without volumes.

    Returns:
        {"volumes": their number; "percent_of_lungs" and "ml": a value, four digits, of each volume
        where it is known, in rising order}.
    """
    rows = list(marked)
    values = {key: sorted(float(f"{row[key]:.4g}") for row in rows if key in row) for key in LESION_FREE_UNITS}
    return {"volumes": len(rows), **values} if rows else None
