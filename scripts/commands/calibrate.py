"""`python -m scripts calibrate WEIGHTS DATA [RUN...]`: complete the metadata of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from ..inference.calibration import calibrate as measure_calibration
from ..settings import usable_device


def calibrate(
    weights: str,
    data: str,
    *runs: str,
    flips: bool = False,
    size: int | None = None,
    slices: int = 400,
    device: str | None = None,
) -> None:
    """Chooses the threshold of trained weights on cases they did not see, and says how far they can be trusted.

    Writes into the metadata beside WEIGHTS: the operating point, the reliability of its
        probabilities, and what the
    features of its training slices look like, by which `segment` tells a scan of another kind;
    draws the reliability curve and lists the cases beside it.

    Args:
        weights: the weights whose metadata is completed.
        data: the prepared data set that they were trained on.
        *runs: weights of trainings with the same recipe on other folds, such as those of
            `experiment`, each judged on its own validation fold; WEIGHTS itself on its own unless
            given.
        flips: takes the mean over four mirror images, now and wherever the weights are applied.
        size: shows slices at this edge length, now and wherever the weights are applied; as the
            metadata says unless given.
        slices: how many training slices describe what is familiar.
        device: cpu, cuda, mps; the first that is there unless given.
    """
    trainings = [Path(run) for run in runs]
    stated = measure_calibration(Path(weights), data, trainings, flips, slices, usable_device(device), size)
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
    print(f"familiar up to a distance of {stated['familiarity']['limit']:.2f}")
