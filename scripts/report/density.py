"""Measure the density of the infection: HU statistics and density classes."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOWEST_HU, HIGHEST_HU = -32768, 32767
PERCENTILES = {"p5_hu": 5, "p25_hu": 25, "median_hu": 50, "p75_hu": 75, "p95_hu": 95}

CLASSES: tuple[tuple[str, str, int | None, int | None], ...] = (
    ("aerated", "like aerated lung", None, -700),
    ("ground_glass_range", "range of ground-glass opacity", -700, -300),
    ("consolidation_range", "range of consolidation", -300, 100),
    (
        "denser_than_lung",
        "denser than soft tissue (vessels with contrast medium, calcification, bone, metal)",
        100,
        None,
    ),
)
"""Name, words, lowest HU (included) and upper limit (not included) of each density class."""
CLASSES_NAME = "density classes by HU threshold (not a radiologist's classification)"
CLASSES_SOURCE = (
    "-700 HU: upper limit of well-aerated lung (there from -950 HU, here without a lower limit) in Negroni et al., "
    "J Digit Imaging 2022;35:424-431, doi 10.1007/s10278-022-00593-z. -300 HU: of the limits between ground-glass "
    "opacity and consolidation compared in 'Quantitative CT for detecting COVID-19 pneumonia in suspected cases', "
    "BMC Infect Dis 2021, doi 10.1186/s12879-021-06556-z, the one at which the volume of ground glass told patients "
    "with COVID-19 from others best (47 patients); others use -250 HU. 100 HU: this report's own choice, above soft "
    "tissue without contrast medium."
)


class HuHistogram:
    """Histogram of voxels in steps of 1 HU, filled slice by slice; half a megabyte for any scan."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(HIGHEST_HU - LOWEST_HU + 1, np.int64)

    def add(self, hu: NDArray[Any]) -> None:
        """Count finite voxels in HU (N,), each rounded to 1 HU."""
        rounded = np.clip(np.rint(hu), LOWEST_HU, HIGHEST_HU).astype(np.int64)
        self._counts += np.bincount(rounded - LOWEST_HU, minlength=self._counts.size)

    @property
    def total(self) -> int:
        """Number of counted voxels."""
        return int(self._counts.sum())

    def count(self, low: int | None, high: int | None) -> int:
        """Count the voxels with low <= HU < high; None means no limit."""
        start = 0 if low is None else low - LOWEST_HU
        stop = None if high is None else high - LOWEST_HU
        return int(self._counts[start:stop].sum())

    def statistics(self) -> dict[str, float] | None:
        """Return mean, population SD, percentiles (linear between ranks), range in HU, or None."""
        if not self.total:
            return None
        present = np.flatnonzero(self._counts)
        hu, weight = (present + LOWEST_HU).astype(np.float64), self._counts[present]
        mean = float(np.average(hu, weights=weight))
        spread = float(np.sqrt(np.average((hu - mean) ** 2, weights=weight)))
        percentiles = {name: self._percentile(percent) for name, percent in PERCENTILES.items()}
        return {"mean_hu": mean, "sd_hu": spread, "min_hu": float(hu[0]), "max_hu": float(hu[-1]), **percentiles}

    def _percentile(self, percent: float) -> float:
        """Give the percentile as `numpy.percentile` defines it by default."""
        rank = (self.total - 1) * percent / 100
        ranks = [math.floor(rank), math.ceil(rank)]
        below, above = np.searchsorted(self._counts.cumsum(), ranks, side="right").tolist()
        return float(LOWEST_HU + below + (above - below) * (rank - ranks[0]))


def density(histogram: HuHistogram, voxel_ml: float | None) -> dict[str, Any]:
    """Describe the density of the infection from the HU of its voxels, of `voxel_ml` each if known.

    Returns:
        {"statistics", "classes", "classes_name", "classes_source"}; percentages are of the
        infection's voxels; without `voxel_ml` there are no volumes.
    """
    return {
        "statistics": histogram.statistics(),
        "classes_name": CLASSES_NAME,
        "classes_source": CLASSES_SOURCE,
        "classes": [_describe_class(histogram, voxel_ml, *one) for one in CLASSES] if histogram.total else [],
    }


def _describe_class(
    histogram: HuHistogram, voxel_ml: float | None, name: str, words: str, low: int | None, high: int | None
) -> dict[str, Any]:
    voxels = histogram.count(low, high)
    row: dict[str, Any] = {"name": name, "words": words, "from_hu": low, "below_hu": high}
    row |= {"infection_voxels": voxels, "infection_percent": 100 * voxels / histogram.total}
    return row if voxel_ml is None else {**row, "volume_ml": voxels * voxel_ml}
