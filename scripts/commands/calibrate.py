"""`python -m scripts calibrate WEIGHTS DATA [RUN...]`: complete the metadata of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import Data, Device


def calibrate(
    weights: Annotated[Path, Argument(help="Weights whose metadata is completed.")],
    data: Data,
    runs: Annotated[
        list[Path] | None,
        Argument(metavar="RUN", help="Weights of the same recipe on other folds; default: WEIGHTS on its own fold."),
    ] = None,
    flips: Annotated[
        bool, Option("--flips", help="Use test-time augmentation by flips, now and wherever the weights are applied.")
    ] = False,
    size: Annotated[
        int | None, Option(help="Edge length of the network's input in pixels; default: the metadata's.")
    ] = None,
    slices: Annotated[int, Option(help="Number of training slices that describe what is in distribution.")] = 400,
    device: Device = None,
) -> None:
    """Choose the decision threshold of weights, measure calibration.

    Works on cases that the weights did not see. Writes into the metadata beside WEIGHTS: the
    operating point, the reliability of the probabilities, and the features of training slices by
    which `segment` recognises out-of-distribution scans. Draws the reliability curve and lists the
    cases beside it.
    """
    from ..inference.calibration import calibrate as measure_calibration
    from ..settings import usable_device

    stated = measure_calibration(weights, str(data), runs or [], flips, slices, usable_device(device), size)
    found, point = stated["calibration"], stated["operating_point"]
    print(f"threshold {point['threshold']:.3f}")
    for kind, dice in found["dice"].items():
        print(f"{dice['n']} {kind}: mean Dice {dice['at_threshold']:.3f} (at 0.5: {dice['at_one_half']:.3f})")
    if found["slices"]:
        print(
            f"a slice counts from {found['slices']['least_share']:.5f} of its pixels on: sensitivity "
            f"{found['slices']['sensitivity']:.3f}, specificity {found['slices']['specificity']:.3f}"
        )
    print(f"calibration error {found['calibration_error']:.3f}")
    print(f"out of distribution above a score of {stated['familiarity']['limit']:.2f}")
