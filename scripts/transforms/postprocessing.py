"""From the network's logits back to the scan: probabilities, the scan's own grid, the mask."""

from __future__ import annotations

import torch
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    CastToTyped,
    Compose,
    EnsureTyped,
    Invertd,
    InvertibleTransform,
    Orientationd,
    Transform,
)

from scripts.transforms.geometry import AXES
from scripts.transforms.preprocessing import IMAGE

PRED = "pred"


class Probabilities(Compose):
    """Logits to probabilities in float32, on the grid that the network saw."""

    def __init__(self) -> None:
        super().__init__([EnsureTyped(PRED, dtype=torch.float32), Activationsd(PRED, sigmoid=True)])


class ScanProbabilities(Compose):
    """Logits to probabilities (1, X, Y, Z) on the scan's own grid, in its stored orientation.

    The resize is inverted bilinearly, slice by slice because the slices keep their number.

    Args:
        preprocessing: what made the network's input from the scan.
    """

    def __init__(self, preprocessing: InvertibleTransform) -> None:
        invert = Invertd(PRED, transform=preprocessing, orig_keys=IMAGE, nearest_interp=False, to_tensor=True)
        super().__init__([Probabilities(), invert])


class EvaluationOutput(Compose):
    """Probabilities on the grid on which metrics are taken, in the label's canonical orientation.

    Args:
        preprocessing: what made the network's input from the scan.
        grid: "scan", or "network" for the paper's 256 x 256.
    """

    def __init__(self, preprocessing: InvertibleTransform, grid: str) -> None:
        steps: list[Transform] = [Probabilities()]
        if grid == "scan":
            orient = Orientationd(PRED, axcodes=AXES, labels=None)
            steps = [ScanProbabilities(preprocessing), orient]
        super().__init__(steps)


class InfectionMask(Compose):
    """Probabilities on the scan's grid to the mask, uint8 in {0, 1}.

    Args:
        preprocessing: what made the network's input from the scan.
        threshold: probability from which on a voxel is infection.
    """

    def __init__(self, preprocessing: InvertibleTransform, threshold: float = 0.5) -> None:
        super().__init__(
            [
                ScanProbabilities(preprocessing),
                AsDiscreted(PRED, threshold=threshold),
                CastToTyped(PRED, dtype=torch.uint8),
            ]
        )
