"""Check whether the orientation that a header claims agrees with the anatomy.

Three exchanges are looked for, each by evidence that turns into its opposite with it: head and feet
by the width of the lungs and the soft tissue at their ends, front and back by the spine, left and
right by the liver, the heart and the larger lung. Nothing is said unless the evidence is positive,
and nothing where the field of view cuts the lungs. The limits lie between what was measured on nine
whole chest CTs of nine patients (eight with COVID-19 pneumonia, one healthy) and on the same scans
turned. A table in front of the patient is no evidence: many are scanned prone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .downsampling import DownsampledScan, Mask, centre
from .hull import convex_hull
from .lungs import Lungs
from .sides import LEFT, RIGHT

_BONE = 180  # HU of a block of about 2 mm
_SOFT = (30, 130)  # HU of liver and the like, plain or with contrast medium
_GRAIN = 25  # HU: standard deviation within 3 x 3 x 3 blocks of it
_LEAST = 50.0  # ml of it that are evidence
_NEAR = 45.0  # mm from the midline: spine, sternum


@dataclass(frozen=True)
class Evidence:
    """Evidence of the anatomy; NaN where there is none.

    In brackets: nine whole chests in the right orientation.

    Attributes:
        width: width of the lungs near their lower end over that near their upper end (1.4 to 1.7).
        abdomen: homogeneous soft tissue within the breadth of the lungs, around their lower
            quarter, as a fraction of that around their lower and their upper quarter (0.79 to
            0.90).
        spine: fraction of the midline's bone that lies in the posterior third of the chest, not the
            anterior (0.97 to 1).
        liver: fraction of homogeneous tissue of the upper abdomen that lies at the patient's right
            (0.6 to 0.9).
        heart: how far soft tissue between the lungs lies to the left of the spine, in mm (-4 to
            22).
        right: the right lung's fraction of the volume of both (0.50 to 0.57).
    """

    width: float
    abdomen: float
    spine: float
    liver: float
    heart: float
    right: float


def orientation_findings(scan: DownsampledScan, lungs: Lungs) -> list[str]:
    """Say where the anatomy contradicts the orientation in which the scan is presented.

    Args:
        scan: the downsampled scan, in what is claimed to be LPS order.
        lungs: the scan's lungs.

    Returns:
        A sentence for each exchange, with its confidence; empty where there is no positive
        evidence.
    """
    mask = lungs.mask
    if lungs.steps != scan.steps:
        x, y, z = scan.steps
        mask = mask[::x, ::y, ::z]
    if not (mask == RIGHT).any() or not (mask == LEFT).any():
        return []
    if any(side.any() for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1])):
        return []
    findings = []
    evidence = weigh(scan, mask)
    if evidence.width < 0.9 and evidence.abdomen < 0.35:
        findings.append(_upside_down(evidence))
        scan, mask = replace(scan, hu=scan.hu[:, :, ::-1]), mask[:, :, ::-1]
        evidence = weigh(scan, mask)
    if evidence.spine < 0.2:
        findings.append(_back_to_front(evidence))
        evidence = weigh(replace(scan, hu=scan.hu[:, ::-1]), mask[:, ::-1])
    contrary = [evidence.heart < -4, evidence.right < 0.495]
    if not lungs.partial and evidence.liver < 0.4 and any(contrary):  # a part of the liver says less
        findings.append(_mirrored(evidence, "high" if all(contrary) else "moderate"))
    return findings


def _upside_down(evidence: Evidence) -> str:
    confidence = "high" if evidence.width < 0.75 and evidence.abdomen < 0.25 else "moderate"
    return (
        "Head and feet seem to be exchanged: the lungs are wide and surround soft tissue, as they do the liver, where "
        f"their apexes should be ({confidence} confidence)."
    )


def _back_to_front(evidence: Evidence) -> str:
    confidence = "high" if evidence.spine < 0.1 else "moderate"
    return f"Front and back seem to be exchanged: the spine lies in front of the lungs ({confidence} confidence)."


def _mirrored(evidence: Evidence, confidence: str) -> str:
    return (
        f"Left and right seem to be exchanged, or there is a situs inversus: {1 - evidence.liver:.0%} of the tissue "
        f"that looks like liver lies at the patient's left, the heart or the larger lung on the side where it should "
        f"not be ({confidence} confidence)."
    )


def weigh(scan: DownsampledScan, mask: NDArray[np.uint8]) -> Evidence:
    """Measure the evidence.

    Args:
        scan: the downsampled scan.
        mask: 0 none, 1 right, 2 left, both present, on the same grid.
    """
    chest = _Chest(scan, mask)
    volumes = np.bincount(mask.ravel(), minlength=3)
    spine, spine_x = chest.spine()
    return Evidence(
        width=chest.width(0.1) / chest.width(0.9),
        abdomen=chest.abdomen(),
        spine=spine,
        liver=chest.liver(spine_x),
        heart=chest.heart(spine_x),
        right=float(volumes[RIGHT] / volumes[1:].sum()),
    )


class _Chest:
    """A scan with its lungs, measured from the lungs' bounding box."""

    def __init__(self, scan: DownsampledScan, mask: NDArray[np.uint8]) -> None:
        self.hu, self.spacing, self.ml, self.lungs = scan.hu, scan.spacing, scan.ml, mask > 0
        self.middle = float(np.mean([centre(mask == side, 0) for side in (RIGHT, LEFT)]))
        (_, self.front, self.low), (_, self.back, self.high) = (
            [int(end(np.flatnonzero(self.lungs.any(axis=axes)))) for axes in ((1, 2), (0, 2), (0, 1))]
            for end in (np.min, np.max)
        )

    def level(self, fraction: float) -> int:
        """Return the slice at a fraction of the lungs' height, from below."""
        return self.low + int(fraction * (self.high - self.low))

    def width(self, fraction: float) -> float:
        """Return the width of both lungs in mm."""
        across = np.flatnonzero(self.lungs[:, :, self.level(fraction)].any(axis=1))
        return float(np.ptp(across) + 1) * self.spacing[0] if across.size else float("nan")

    def soft(self, lowest: float, highest: float) -> Mask:
        """Find homogeneous soft tissue beside and between the lungs over a part of their height."""
        part = self.hu[:, self.front : self.back + 1, self.level(lowest) : self.level(highest) + 1].astype(np.float32)
        mean = ndimage.uniform_filter(part, 3)
        spread = ndimage.uniform_filter(part**2, 3) - mean**2
        soft: Mask = (mean > _SOFT[0]) & (mean < _SOFT[1]) & (spread < _GRAIN**2)
        return soft

    def abdomen(self) -> float:
        """Return the fraction of soft tissue in the lower quarter within the lungs' breadth."""
        amounts = []
        for lowest, highest in ((0.0, 0.25), (0.75, 1.0)):
            lungs = np.asarray(self.lungs[:, :, self.level(lowest) : self.level(highest) + 1].any(axis=1))
            spanned = np.maximum.accumulate(lungs, axis=0) & np.maximum.accumulate(lungs[::-1], axis=0)[::-1]
            amounts.append(float(np.count_nonzero(self.soft(lowest, highest) & spanned[:, None])) * self.ml)
        return amounts[0] / sum(amounts) if sum(amounts) > _LEAST else float("nan")

    def spine(self) -> tuple[float, float]:
        """Compare bone of the midline at the back with that in front; return the x at the back.

        Bone is weighted by the square of the fraction of slices in which it is found at a place:
        the spine runs through all of them, ribs and vessels full of contrast medium do not.
        """
        steady = ndimage.uniform_filter((self.hu[:, :, self.low : self.high + 1] > _BONE).mean(axis=2), 3) ** 2
        steady[np.abs(np.arange(len(steady)) - self.middle) > _NEAR / self.spacing[0]] = 0
        third = (self.back - self.front) / 3
        rows = np.arange(steady.shape[1])
        back, front = steady[:, rows > self.back - third], steady[:, rows < self.front + third]
        if back.sum() + front.sum() < 1:  # less than a column of bone
            return float("nan"), self.middle
        x = np.average(np.arange(len(steady)), weights=back.sum(axis=1)) if back.sum() > 1 else self.middle
        return float(back.sum() / (back.sum() + front.sum())), float(x)

    def liver(self, spine_x: float) -> float:
        """Return the fraction of soft tissue around the lungs' lower quarter right of the spine."""
        amount = self.soft(0.0, 0.25).sum(axis=(1, 2)) * self.ml
        apart = 15 / self.spacing[0]
        places = np.arange(len(amount))
        right, left = amount[places < spine_x - apart].sum(), amount[places > spine_x + apart].sum()
        return float(right / (right + left)) if right + left > _LEAST else float("nan")

    def heart(self, spine_x: float) -> float:
        """Return how far soft tissue between the lungs, at mid-height, lies left of the spine."""
        depth = self.front + int(0.6 * (self.back - self.front))
        amount = np.zeros(len(self.hu))
        for z in range(self.level(0.4), self.level(0.6) + 1):
            lungs = self.lungs[:, :, z]
            if lungs.any():
                between = convex_hull(lungs) & ~lungs & (self.hu[:, :, z] > -20)
                amount += between[:, :depth].sum(axis=1)
        if not amount.any():
            return float("nan")
        return float(np.average(np.arange(len(amount)), weights=amount) - spine_x) * self.spacing[0]
