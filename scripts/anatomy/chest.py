"""Check whether a scan shows a chest, and the whole of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .downsampling import DownsampledScan, Mask
from .tissue import Tissues

_BODY = 0.3  # litres: less is a phantom, a limb or nothing
_LUNG = 0.1  # litres of aerated lung, in which one slice of a lung of 5 mm holds about as much
_LUNG_HU = (-960, -450)  # HU: median of aerated lung, emphysema and expiration included
_LONG_CUT = 0.5  # of the slices: shoulders that the field of view cuts are no news


@dataclass(frozen=True)
class Examination:
    """Hold what a scan shows.

    Attributes:
        body: whether there is a body.
        lungs: whether there is air inside the body with the volume and the HU of lung.
        cut_sides: sides of the patient at which the field of view cuts the body in most slices:
            "right", "left", "front", "back".
        findings: sentences for a radiologist on what is not as a chest CT should be.
    """

    body: bool
    lungs: bool
    cut_sides: list[str]
    findings: list[str]

    @property
    def body_cut(self) -> bool:
        """Whether the field of view cuts the body."""
        return bool(self.cut_sides)


def examine(seen: Tissues) -> Examination:
    """Check whether there are a body and lungs."""
    scan, body = seen.scan, seen.body
    litres = float(np.count_nonzero(body)) * scan.ml / 1000
    if litres < _BODY and np.count_nonzero(body) < 0.1 * body.size:
        return Examination(False, False, [], ["There is no body in the scan."])
    lungs = _is_lung(scan, seen.aerated)
    cut = _cut_sides(body)
    findings = []
    if not lungs:
        findings.append("No lung is seen: the body holds no air with the volume and the density of lung.")
    if cut:
        findings.append(f"The field of view cuts the body at the patient's {', '.join(cut)}.")
    return Examination(True, lungs, cut, findings)


def _is_lung(scan: DownsampledScan, aerated: Mask) -> bool:
    """Whether air in the body has volume and density of lung; of few slices less is asked."""
    volume = float(np.count_nonzero(aerated)) * scan.ml
    if not volume:
        return False
    depth = aerated.shape[2] * scan.spacing[2]
    low, high = _LUNG_HU
    dense = low < float(np.median(scan.hu[aerated])) < high
    return dense and volume > 1000 * _LUNG * min(1.0, depth / 100)


def _cut_sides(body: Mask) -> list[str]:
    """Return the sides on which the body leaves the field of view in most of its slices."""
    slices = np.count_nonzero(body.any(axis=(0, 1)))
    sides = {"right": body[0], "left": body[-1], "front": body[:, 0], "back": body[:, -1]}
    return [name for name, plane in sides.items() if plane.any(axis=0).sum() > _LONG_CUT * slices]
